"""sacct: how a job that has left the queue ended, and what it used; PURE.

Rules:
- Steps are asked for too: an `srun` that ran out of memory makes its job FAILED, not OUT_OF_MEMORY.
- No window of time (-S): a job that was cancelled before it was eligible is in none, and is found
  by its id alone.
- A row bears the name `allocation` until the job's own has arrived, which takes a second or so
  after a quick end, and is for ever if it was cancelled before it was eligible.
- The exit code of a step may be missing: a node that failed has told none.
- While a step has not ended, its usage is not complete, and its cause of the end is not known.
- A row that has not ended says nothing: the queue knows better.
- sacct takes 128 off exit codes above it: `15:0` is 15 or 143.
Source: https://slurm.schedmd.com/sacct.html; all of it was seen with Slurm 22.05.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Optional

from cluster_client.schedulers import (
    Command,
    JobRef,
    Output,
    QueryFailed,
    Sighting,
    Usage,
    array_sighting,
)
from cluster_client.schedulers.slurm import states

_FIELDS = "jobid,state,exitcode,start,end,elapsedraw,totalcpu,maxrss,jobname"
_UNITS_MIB = {"": 1 / 1048576, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1048576.0}
_DISABLED = "Slurm accounting storage is disabled"
_NAME_TO_COME = "allocation"


@dataclass(frozen=True)
class _Row:
    """One line: a job, a task of an array, or a step of either (`step` is not empty)."""

    job_id: str
    task: str
    step: str
    state: str
    exit_code: int
    signal: int
    started_at: float
    ended_at: float
    elapsed_s: float
    cpu_s: float
    max_memory_mib: Optional[float]
    name: str


def is_disabled(output: Output) -> bool:
    """Whether this Slurm keeps no accounting at all."""
    return _DISABLED in output.stderr


def query(jobs: Sequence[JobRef]) -> Command:
    ids = ",".join(job.scheduler_job_id for job in jobs)
    return Command(("sacct", "--noheader", "--parsable2", f"--format={_FIELDS}", f"--jobs={ids}"))


def parse(output: Output, jobs: Sequence[JobRef]) -> dict[str, Sighting]:
    """How those of `jobs` that have ended did so, by tag; raises QueryFailed."""
    if is_disabled(output):
        return {}
    if output.returncode != 0 or "error:" in output.stderr:
        words = output.stderr.strip()[:500] or f"status {output.returncode}"
        raise QueryFailed(f"sacct failed: {words}")
    rows = [_row(line) for line in output.stdout.splitlines() if line]
    by_id: dict[str, list[_Row]] = {}
    for row in rows:
        by_id.setdefault(row.job_id, []).append(row)
    found = {job.tag: _end(job.tag, by_id.get(job.scheduler_job_id, ())) for job in jobs}
    return {tag: sighting for tag, sighting in found.items() if sighting is not None}


def _row(line: str) -> _Row:
    try:
        job, state, exit_code, start, end, elapsed, cpu, rss, name = line.split("|", 8)
        whole, _, step = job.partition(".")
        job_id, _, task = whole.partition("_")
        code, signal = (exit_code or "0:0").split(":")
        return _Row(
            job_id, task, step, state, int(code), int(signal), time_of(start), time_of(end),
            float(elapsed or 0), _duration_s(cpu), _size_mib(rss), name,
        )  # fmt: skip
    except ValueError as error:
        raise QueryFailed(f"sacct printed {line[:200]!r}: {error}") from error


def _end(tag: str, rows: Iterable[_Row]) -> Optional[Sighting]:
    """The end of the job of which `rows` tell; None if it has not ended, or is another's."""
    tasks: dict[str, list[_Row]] = {}
    for row in rows:
        tasks.setdefault(row.task, []).append(row)
    ends = []
    for those in tasks.values():
        head = next((row for row in those if not row.step), None)
        if head is None or head.name not in (tag, _NAME_TO_COME) or not states.is_end(head.state):
            return None
        ends.append(_end_of_task(head, [row for row in those if row.step]))
    if not ends:
        return None
    end = ends[0] if list(tasks) == [""] else array_sighting(ends)
    every = [row for those in tasks.values() for row in those]
    is_complete = all(states.is_end(row.state) for row in every)
    return replace(
        end,
        usage=_usage(every) if is_complete else None,
        is_provisional=end.outcome == "failed" and not is_complete,
    )


def _end_of_task(head: _Row, steps: Sequence[_Row]) -> Sighting:
    end = states.of_end(head.state, 0, head.exit_code, head.signal, head.ended_at)
    if end.outcome == "failed" and any(step.state == "OUT_OF_MEMORY" for step in steps):
        reason = "one of its steps used more memory than it had asked for"
        end = replace(end, outcome="out_of_memory", reason=reason)
    return replace(end, is_exact=False)


def _usage(rows: Sequence[_Row]) -> Usage:
    heads = [row for row in rows if not row.step]
    started = [row.started_at for row in heads if row.started_at]
    ended = [row.ended_at for row in heads if row.ended_at]
    span_s = max(ended) - min(started) if started and ended else 0.0
    elapsed_s = heads[0].elapsed_s if len(heads) == 1 else span_s
    memory = [row.max_memory_mib for row in rows if row.max_memory_mib is not None]
    return Usage(
        elapsed_s=elapsed_s,
        cpu_s=round(sum(row.cpu_s for row in heads), 3),
        max_memory_mib=round(max(memory), 3) if memory else None,
    )


def time_of(text: str) -> float:
    """Seconds since the epoch, of a time in UTC; 0 if there is none."""
    if text in ("", "Unknown", "None", "N/A"):
        return 0.0
    return float(calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S")))


def _duration_s(text: str) -> float:
    """Seconds of [DD-[HH:]]MM:SS[.mmm], as TotalCPU has it."""
    if not text:
        return 0.0
    days, _, rest = text.rpartition("-")
    hours, minutes, seconds = ("0:0:" + rest).split(":")[-3:]
    return ((float(days or 0) * 24 + float(hours)) * 60 + float(minutes)) * 60 + float(seconds)


def _size_mib(text: str) -> Optional[float]:
    match = re.fullmatch(r"([0-9.]+)([KMGT]?)", text)
    return float(match[1]) * _UNITS_MIB[match[2]] if match else None
