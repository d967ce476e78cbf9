"""The leading directive lines of a user's script, and which of them go into the wrapper; PURE.

Rules:
- sbatch reads #SBATCH lines up to the first line that is neither empty nor a comment. So do we,
  and take no others either, though sbatch looks for #PBS and #BSUB further down.
- What would break the exactly-once submission, or what we can't follow, is refused by name.
- What we set ourselves (job name, files, directory) is left out; the job's name becomes
  its display name.
- A typed resource wins: the directives that mean the same are left out.
- A line of which nothing is left out goes in as it is.
- #PBS and #BSUB lines: see translated.py. `#$` lines mean nothing to sbatch; they go in for those
  of a site's plugins that read scripts.
Source: https://slurm.schedmd.com/sbatch.html; src/sbatch/opt.c (_opt_batch_script) of Slurm 22.05.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from cluster_client.protocol.messages import Resources
from cluster_client.schedulers.slurm import options, translated

WORD = "#SBATCH"
_WORDS = (WORD, *translated.WORDS, "#$")
_ENVIRONMENT = "the job's environment is built here: set variables in the job instead"

_REFUSED = {
    "clusters": "jobs of another cluster could not be followed from here",
    "export": _ENVIRONMENT,
    "export-file": _ENVIRONMENT,
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

_OURS = frozenset(("chdir", "error", "job-name", "open-mode", "output", "quiet"))

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
    for word, line in leading_lines(script):
        if word == WORD:
            lines.extend(_without(line, left_out))
        elif resources.memory_mib is None:
            lines.append(line)
        else:
            lines.extend(translated.without_memory(word, line))
    return lines


def _without(line: str, left_out: Collection[str]) -> list[str]:
    """What remains of an #SBATCH line: itself, another, or none."""
    written = options.read(line[len(WORD) :])
    kept = [option for option in written if option.name not in left_out]
    if len(kept) == len(written):
        return [line]
    words = [word for option in kept for word in option.words]
    return [" ".join([WORD, *map(options.quoted, words)])] if kept else []


def objections(script: str) -> Iterator[str]:
    """Why each directive that can't be followed can't be."""
    for word, line in leading_lines(script):
        try:
            if word == WORD:
                yield from _refused(options.read(line[len(WORD) :]))
            elif option := translated.exported(word, line):
                yield f"{word} {option} can't be used: {_ENVIRONMENT}"
        except options.Unreadable as error:
            yield f"the line {line[:80]!r} can't be read ({error})"


def _refused(found: Iterable[options.Option]) -> Iterator[str]:
    for option in found:
        written = option.words[0].partition("=")[0]
        if option.name in _REFUSED:
            yield f"{written} can't be used: {_REFUSED[option.name]}"
        elif not option.name and written in ("hetjob", "packjob", ":"):
            yield f"{written} can't be used: {_REFUSED['hetjob']}"


def job_name(script: str) -> str:
    """What the script calls the job, as sbatch would have it; "" if it doesn't."""
    lines = list(leading_lines(script))
    ours = [o for word, line in lines if word == WORD for o in options.read(line[len(WORD) :])]
    names = [option.value for option in ours if option.name == "job-name"]
    if not any(option.name == "ignore-pbs" for option in ours):
        names += translated.job_names(lines)
    return names[-1] if names else ""


def leading_lines(script: str) -> Iterator[tuple[str, str]]:
    """The directive lines, each with the word that it begins with."""
    for line in script.split("\n"):
        word = next((word for word in _WORDS if line.startswith(word)), "")
        if word:
            yield word, line
        elif not re.match(r"\s*(#|$)", line):
            return


def variables_that_act(environment: Mapping[str, str]) -> list[str]:
    """Names that sbatch itself would obey, or that falsify what the wrapper reads."""
    return sorted(n for n in environment if n.startswith(("SBATCH_", "SLURM_")))
