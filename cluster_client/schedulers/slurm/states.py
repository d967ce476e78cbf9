"""What the words of squeue and sacct mean; PURE.

Rules:
- A word that is not in the tables is UNKNOWN, with the word: it ends no job.
- COMPLETING is no end: the epilog, or a child that ignores TERM, is still there. A job that is
  being requeued shows its next restart count by then already, which is not that of what ends.
- REVOKED is no end: a sibling of a federation has started the job.
Source: https://slurm.schedmd.com/squeue.html and sacct.html, JOB STATE CODES.
"""

from __future__ import annotations

from dataclasses import replace

from cluster_client.schedulers import (
    ENDED,
    QUEUED,
    RUNNING,
    UNKNOWN,
    Sighting,
    sighting_of_exit,
)
from cluster_client.schedulers.slurm import reasons

_OPEN = {
    "CONFIGURING": QUEUED,
    "EXPEDITING": QUEUED,
    "PENDING": QUEUED,
    "POWER_UP_NODE": QUEUED,
    "REQUEUED": QUEUED,
    "REQUEUE_FED": QUEUED,
    "REQUEUE_HOLD": QUEUED,
    "RESV_DEL_HOLD": QUEUED,
    "SPECIAL_EXIT": QUEUED,
    "COMPLETING": RUNNING,
    "RESIZING": RUNNING,
    "RUNNING": RUNNING,
    "SIGNALING": RUNNING,
    "STAGE_OUT": RUNNING,
    "STOPPED": RUNNING,
    "SUSPENDED": RUNNING,
}

_ENDED = {
    "BOOT_FAIL": ("node_fail", "its nodes did not boot"),
    "CANCELLED": ("cancelled", "cancelled"),
    "COMPLETED": ("completed", ""),
    "DEADLINE": ("wall_time_exceeded", "ended at its deadline"),
    "FAILED": ("failed", ""),
    "LAUNCH_FAILED": ("node_fail", "it could not be launched on its nodes"),
    "NODE_FAIL": ("node_fail", "one of its nodes failed"),
    "OUT_OF_MEMORY": ("out_of_memory", "it used more memory than it had asked for"),
    "PREEMPTED": ("preempted", "it had to give way to another job"),
    "RECONFIG_FAIL": ("node_fail", "its nodes could not be reconfigured"),
    "TIMEOUT": ("wall_time_exceeded", "it reached its time limit"),
}


def of_open(word: str, run: int, reason: str) -> Sighting:
    """A job that has not ended, or whose state is not known here."""
    state = _OPEN.get(word, UNKNOWN)
    if word == "COMPLETING":
        run = 0
    why = reason if state == QUEUED else ""
    return Sighting(
        state, run=run, reason=reasons.of_waiting(why), words=word, knows_cancel=True,
        needs_action=reasons.needs_action(why),
    )  # fmt: skip


def is_end(words: str) -> bool:
    """Whether a state, which may be "CANCELLED by 1000", is a final one."""
    return words.partition(" ")[0] in _ENDED


def of_end(words: str, run: int, exit_code: int, signal: int, ended_at: float) -> Sighting:
    """A job that has ended in the state `words`, which `is_end`."""
    outcome, reason = _ENDED[words.partition(" ")[0]]
    if outcome == "failed":
        # Our wrapper ends with 128 + N after signal N; a signal told here is the wrapper's own.
        base = sighting_of_exit(128 + signal if signal else exit_code, ended_at, words)
        if not base.reason:  # FAILED with exit code 0: Slurm's own judgement, as of a prolog
            base = replace(base, reason="Slurm calls it failed")
        return replace(base, outcome="failed", run=run, knows_cancel=True)
    if words.startswith("CANCELLED by "):
        reason = f"cancelled by uid {words.rpartition(' ')[2]}"
    return Sighting(
        ENDED, run=run, outcome=outcome, exit_code=0 if outcome == "completed" else None,
        reason=reason, words=words, ended_at=ended_at, knows_cancel=True,
    )  # fmt: skip
