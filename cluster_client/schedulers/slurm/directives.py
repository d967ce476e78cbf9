"""The leading `#SBATCH` lines of a user's script, and which of them go into the wrapper; PURE.

Rules:
- sbatch reads them up to the first line that is neither empty nor a comment. So do we.
- What would break the exactly-once submission, or what we can't follow, is refused by name.
- What we set ourselves (job name, files, directory, limits) is left out; the job's name becomes
  its display name.
- A typed resource wins: the directives that mean the same are left out.
- A line of which nothing is left out goes in as it is.
Source: https://slurm.schedmd.com/sbatch.html; src/sbatch/opt.c (_opt_batch_script) of Slurm 22.05.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from cluster_client.protocol.messages import Resources
from cluster_client.schedulers.slurm import options

WORD = "#SBATCH"

_REFUSED = {
    "clusters": "jobs of another cluster could not be followed from here",
    "export": "the job's environment is built here: set variables in the job instead",
    "export-file": "the job's environment is built here: set variables in the job instead",
    "gid": "jobs run as the cluster account",
    "help": "it submits nothing",
    "hetjob": "heterogeneous jobs are not supported",
    "packjob": "heterogeneous jobs are not supported",
    "parsable": "it is used here already",
    "test-only": "it submits nothing",
    "uid": "jobs run as the cluster account",
    "usage": "it submits nothing",
    "version": "it submits nothing",
    "wait": "waiting is done here",
    "wrap": "the script itself is what is submitted",
}

_OURS = frozenset(
    ("chdir", "error", "ignore-pbs", "job-name", "open-mode", "output", "propagate", "quiet")
)

_SAME_AS = {
    "nodes": ("nodes",),
    "tasks": ("ntasks",),
    "cpus_per_task": ("cpus-per-task",),
    "memory_mib": ("mem", "mem-per-cpu", "mem-per-gpu"),
    "walltime_s": ("time", "time-min"),
    "partition": ("partition",),
    "account": ("account",),
    "qos": ("qos",),
}


def header(script: str, resources: Resources) -> list[str]:
    """The directive lines that go into the wrapper."""
    left_out = set(_OURS)
    for field, names in _SAME_AS.items():
        if getattr(resources, field) is not None:
            left_out.update(names)
    lines = []
    for line in directive_lines(script):
        written = options.read(line[len(WORD) :])
        kept = [option for option in written if option.name not in left_out]
        if len(kept) == len(written):
            lines.append(line)
        elif kept:
            words = [word for option in kept for word in option.words]
            lines.append(" ".join([WORD, *map(options.quoted, words)]))
    return lines


def objections(script: str) -> Iterator[str]:
    """Why each directive that can't be followed can't be."""
    for line in directive_lines(script):
        try:
            found = options.read(line[len(WORD) :])
        except options.Unreadable as error:
            yield f"the line {line[:80]!r} can't be read ({error})"
            continue
        for option in found:
            written = option.words[0].partition("=")[0]
            if option.name in _REFUSED:
                yield f"{written} can't be used: {_REFUSED[option.name]}"
            elif not option.name and written in ("hetjob", "packjob", ":"):
                yield f"{written} can't be used: {_REFUSED['hetjob']}"


def job_name(script: str) -> str:
    """The last --job-name, or ""."""
    names = [
        option.value
        for line in directive_lines(script)
        for option in options.read(line[len(WORD) :])
        if option.name == "job-name"
    ]
    return names[-1] if names else ""


def directive_lines(script: str) -> list[str]:
    """The lines that sbatch would read options from."""
    found = []
    for line in script.split("\n"):
        if line.startswith(WORD):
            found.append(line)
        elif not re.match(r"\s*(#|$)", line):
            break
    return found


def variables_that_act(environment: Mapping[str, str]) -> list[str]:
    """Names that sbatch itself would obey, or that falsify what the wrapper reads."""
    return sorted(n for n in environment if n.startswith(("SBATCH_", "SLURM_")))
