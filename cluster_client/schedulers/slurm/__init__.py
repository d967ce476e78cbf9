"""Slurm: sbatch, squeue, sacct and scancel. Made for 20.11 and newer, run against 22.05.

Rules:
- The tag is the job's name on the command line, where no directive or variable changes it; the
  claim and the look-up rest on it. The accounting may lose comments, never names.
- Text output with formats of our own: the JSON of these commands changes with each release, takes
  ten times as long, and scontrol has none.
- squeue says what a job is doing, and for MinJobAge how it ended, exit code and all; sacct says it
  afterwards, and what it used.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Optional, Union

from cluster_client import layout
from cluster_client.protocol import messages
from cluster_client.schedulers import (
    Accepted,
    Cancellation,
    Command,
    Context,
    JobRef,
    Output,
    QueryFailed,
    Refusal,
    Sighting,
    Submission,
    Unclear,
    array_sighting,
)
from cluster_client.schedulers.slurm import accounting, directives, refusals, states

_RETRY_FLOOR_S = 60.0
_MESSAGE_TIMEOUT_S = 10.0
"""Slurm's default. Source: https://slurm.schedmd.com/slurm.conf.html, MessageTimeout"""

_LOOK_BACK_S = 600.0
_FULL_LOOK_BACK = "now-60days"

_NAMES_LIMIT = 5000
"""So many names fit in one argument (128 KiB); above it squeue is asked for all our jobs."""

# With -O a size cuts what is longer, and what follows the size ends the field. Names come last:
# those of other jobs of this account may hold anything.
# Source: https://slurm.schedmd.com/squeue.html, --Format
_FIELDS = (
    "ArrayJobID:14|,ArrayTaskID:32|,State:24|,RestartCnt:12|,exit_code:14|,EndTime:24|"
    ",Reason:64|,Name:64|"
)
_CLAIM = re.compile(r"[^:\s]*:(\d+)")
_LINE = re.compile(r"\d+ *\|")

_OPTIONS = {
    "nodes": "--nodes={}",
    "tasks": "--ntasks={}",
    "cpus_per_task": "--cpus-per-task={}",
    "memory_mib": "--mem={}M",
    "partition": "--partition={}",
    "account": "--account={}",
    "qos": "--qos={}",
}


@dataclass(frozen=True)
class _Site:
    """What `survey` has told."""

    version: str = ""
    message_timeout_s: float = _MESSAGE_TIMEOUT_S
    has_accounting: bool = True
    partitions: tuple[str, ...] = ()


class Slurm:
    name = "slurm"
    # All tasks of an array share one claim, under the array's id.
    # SLURM_OPEN_MODE comes from our --open-mode, and would act on each srun of the script.
    wrapper_identity = """\
unset SLURM_OPEN_MODE
_w_id=${SLURM_CLUSTER_NAME-}:${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}
_w_task=${SLURM_ARRAY_TASK_ID:--} _w_run=${SLURM_RESTART_COUNT:-0}"""

    retry_floor_s = _RETRY_FLOOR_S

    def __init__(self, context: Context) -> None:
        self._site = _Site()

    # What this Slurm is -------------------------------------------------------------------------

    @property
    def version(self) -> str:
        return self._site.version

    def survey(self) -> tuple[Command, ...]:
        # --all: a hidden partition can be asked for all the same.
        return (
            Command(("scontrol", "show", "config")),
            Command(("sinfo", "--noheader", "--all", "--format=%R")),
        )

    def learn(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            if output.returncode != 0:
                raise QueryFailed(f"the survey of Slurm failed: {output.stderr.strip()[:500]}")
        pairs = (line.partition("=") for line in outputs[0].stdout.splitlines())
        config = {name.strip(): value.strip() for name, _, value in pairs}
        timeout = re.match(r"\d+", config.get("MessageTimeout", ""))
        self._site = _Site(
            version=config.get("SLURM_VERSION", ""),
            message_timeout_s=float(timeout[0]) if timeout else _MESSAGE_TIMEOUT_S,
            has_accounting=not config.get("AccountingStorageType", "").endswith("none")
            and config.get("AccountingStorageType") != "(null)",
            partitions=tuple(dict.fromkeys(outputs[1].stdout.split())),
        )

    def capabilities(self) -> messages.Capabilities:
        return messages.Capabilities(
            resources=(*_OPTIONS, "walltime_s"),
            partitions=self._site.partitions,
            has_accounting=self._site.has_accounting,
            has_arrays=True,
        )

    # What is asked of it ------------------------------------------------------------------------

    def objection(self, submit: messages.Submit) -> str:
        clauses = list(directives.objections(submit.script))
        clauses += [
            f"the variable {name} would act on sbatch itself: use a resource or an #SBATCH line"
            for name in directives.variables_that_act(submit.environment)
        ]
        return f"The job can't be given to Slurm: {'; '.join(clauses)}." if clauses else ""

    def header(self, submit: messages.Submit) -> str:
        ours = (
            # First: a later line of the user's own wins.
            f"{directives.WORD} {'--requeue' if submit.may_requeue else '--no-requeue'}",
            f"{directives.WORD} --comment={submit.tag}",
        )
        return "\n".join((*ours, *directives.header(submit.script, submit.resources)))

    def display_name(self, submit: messages.Submit) -> str:
        return directives.job_name(submit.script)

    def claimed_id(self, text: str) -> str:
        match = _CLAIM.fullmatch(text)
        return match[1] if match else ""

    def retry_at(self, intent_at: float, limit_s: float) -> float:
        # The controller may still be working at what a killed sbatch has sent.
        message_s = 3 * self._site.message_timeout_s
        return intent_at + limit_s + max(self.retry_floor_s, message_s)

    # Submission ---------------------------------------------------------------------------------

    def submit(self, job: Submission) -> Command:
        asked = job.resources
        options = [
            option.format(getattr(asked, name))
            for name, option in _OPTIONS.items()
            if getattr(asked, name) is not None
        ]
        if asked.walltime_s is not None:
            # Slurm counts in minutes, and takes 0 for "no limit".
            options.append(f"--time={max(1, math.ceil(asked.walltime_s / 60))}")
        return Command(
            (
                "sbatch",
                "--parsable",
                f"--job-name={job.tag}",
                f"--chdir={job.directory}",
                "--output=stdout.log",
                "--error=stderr.log",
                # With truncate a duplicate empties the job's output before any wrapper runs.
                "--open-mode=append",
                *options,
                f"{layout.control_of(job.directory)}/wrapper",
            ),
            environment=job.environment,
            directory=job.directory,
            umask=job.umask,
        )

    def parse_submit(self, output: Output) -> Union[Accepted, Refusal, Unclear]:
        if output.returncode != 0:
            return refusals.classify(output.stderr, output.returncode)
        # In a federation it is ID;CLUSTER; some sites' sbatch prints words of its own before it.
        ids = re.findall(r"^(\d+)(?:;\S+)?$", output.stdout, re.MULTILINE)
        if len(ids) == 1:
            return Accepted(ids[0])
        return Unclear(f"sbatch printed no job id but {output.stdout.strip()[:200]!r}")

    # Queries ------------------------------------------------------------------------------------

    def queue(self, jobs: Sequence[JobRef]) -> Command:
        argv = ["squeue", "--me", "--noheader", "--states=all", f"--Format={_FIELDS}"]
        if len(jobs) <= _NAMES_LIMIT:
            argv.append("--name=" + ",".join(job.tag for job in jobs))
        return Command(tuple(argv))

    def parse_queue(self, output: Output, jobs: Sequence[JobRef]) -> dict[str, Sighting]:
        wanted = {(job.scheduler_job_id, job.tag) for job in jobs}
        tasks: dict[str, list[Sighting]] = {}
        arrays = set()
        for line in self._lines_of_queue(output):
            row = _fields(line)
            job_id, task, name = row[0], row[1], row[7]
            if (job_id, name) not in wanted:
                continue
            tasks.setdefault(name, []).append(_sighting(row))
            if task != "N/A":
                arrays.add(name)
        return {
            name: array_sighting(those) if name in arrays else those[0]
            for name, those in tasks.items()
        }

    def _lines_of_queue(self, output: Output) -> list[str]:
        if output.returncode != 0:
            words = output.stderr.strip()[:500] or f"status {output.returncode}"
            raise QueryFailed(f"squeue failed: {words}")
        return [line for line in output.stdout.splitlines() if _LINE.match(line)]

    def accounting(self, jobs: Sequence[JobRef]) -> Optional[Command]:
        return accounting.query(jobs) if self._site.has_accounting and jobs else None

    def parse_accounting(self, output: Output, jobs: Sequence[JobRef]) -> dict[str, Sighting]:
        if accounting.is_disabled(output):
            self._site = replace(self._site, has_accounting=False)
        return accounting.parse(output, jobs)

    def find(self, tag: str, since: float) -> tuple[Command, ...]:
        start = _FULL_LOOK_BACK
        if since:
            start = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since - _LOOK_BACK_S))
        return (
            Command(
                ("squeue", "--me", "--noheader", "--states=all", f"--name={tag}", "--format=%F")
            ),
            Command(
                (
                    *("sacct", "--allocations", "--noheader", "--parsable2", "--format=jobid"),
                    *(f"--name={tag}", f"--starttime={start}"),
                )
            ),
        )

    def parse_find(self, tag: str, outputs: Sequence[Output]) -> tuple[str, ...]:
        found: list[str] = []
        for output in outputs:
            if accounting.is_disabled(output):
                continue
            if output.returncode != 0 or "error:" in output.stderr:
                raise QueryFailed(f"the look-up of {tag} failed: {output.stderr.strip()[:500]}")
            found += re.findall(r"^(\d+)(?:_\S+)?\s*$", output.stdout, re.MULTILINE)
        return tuple(dict.fromkeys(found))

    # Cancelling ---------------------------------------------------------------------------------

    def cancel(self, job: JobRef, is_forced: bool) -> Command:
        # After KillWait Slurm itself kills what ignores its TERM: nothing is left to force.
        return Command(("scancel", f"--name={job.tag}", job.scheduler_job_id))

    def parse_cancel(self, output: Output) -> Cancellation:
        # scancel of a finished or unknown job also exits 0, so its exit status proves nothing.
        # Source: https://slurm.schedmd.com/scancel.html
        if output.returncode == 0:
            return Cancellation(was_alive=True)
        words = output.stderr.strip()[:500]
        if any(text in words for text in _NOTHING_TO_CANCEL):
            return Cancellation(was_alive=False)
        raise QueryFailed(f"scancel failed: {words or f'status {output.returncode}'}")


_NOTHING_TO_CANCEL = (
    "Invalid job id specified",
    "Job/step already completing or completed",
    "No active jobs match ALL job filters",
)


def _fields(line: str) -> list[str]:
    fields = [field.strip() for field in line.split("|", 7)]
    if len(fields) != 8:
        raise QueryFailed(f"squeue printed {line[:200]!r}")
    fields[7] = fields[7].rpartition("|")[0].strip()
    return fields


def _sighting(fields: Sequence[str]) -> Sighting:
    _, _, word, restarts, status, end, reason, _ = fields
    try:
        run = int(restarts)
        if not states.is_end(word):
            return states.of_open(word, run, reason)
        exit_code, signal = _decoded(status)
        ended = states.of_end(word, run, exit_code, signal, accounting.time_of(end))
    except ValueError as error:
        raise QueryFailed(f"squeue printed {'|'.join(fields)!r:.200}: {error}") from error
    # Only the accounting tells a step that ran out of memory.
    return replace(ended, is_provisional=ended.outcome == "failed")


def _decoded(status: str) -> tuple[int, int]:
    """Exit code and signal. It is printed as wait(2) has it, 36608 for exit 143."""
    if ":" in status:
        exit_code, _, signal = status.partition(":")
        return int(exit_code), int(signal)
    return int(status) >> 8, int(status) & 0x7F
