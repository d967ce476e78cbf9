"""The life of a job, as one table.

Rules:
- A pair (status, event) that is not in TRANSITIONS is illegal: it changes nothing and is logged.
- A move to the same status is legal and records facts (an id, accounting) without a change.
- The moves in NEW_RUN_ONLY are legal only if the run number (restart count) has grown.
- CANCELLING may be overtaken by a true end that happened before the cancel arrived.
- Final statuses accept delete and late accounting, nothing else.

Choices, the database constraint, admin buttons and the diagram in docs derive from this table.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class JobStatus(IntEnum):
    """Names and numbers of django_hpc_job_controller, so that its portals can move over."""

    DRAFT = 0
    PENDING = 10
    SUBMITTING = 20
    SUBMITTED = 30
    QUEUED = 40
    RUNNING = 50
    CANCELLING = 60
    CANCELLED = 70
    DELETING = 80
    DELETED = 90
    ERROR = 400
    WALL_TIME_EXCEEDED = 401
    OUT_OF_MEMORY = 402
    NODE_FAIL = 403
    PREEMPTED = 404
    COMPLETED = 500

    @property
    def label(self) -> str:
        return self.name.replace("_", " ").capitalize()


class Event(StrEnum):
    """What can happen to a job."""

    SUBMIT = "submit"
    CLAIM = "claim"
    RELEASE = "release"
    REJECT = "reject"
    ACCEPT = "accept"
    QUEUE = "queue"
    START = "start"
    COMPLETE = "complete"
    FAIL = "fail"
    EXCEED_WALL_TIME = "exceed_wall_time"
    EXCEED_MEMORY = "exceed_memory"
    FAIL_NODE = "fail_node"
    PREEMPT = "preempt"
    CANCEL = "cancel"
    CONFIRM_CANCEL = "confirm_cancel"
    DECLARE_LOST = "declare_lost"
    ACCOUNT = "account"
    DELETE = "delete"
    CONFIRM_DELETE = "confirm_delete"


S, E = JobStatus, Event

ENDS: dict[Event, JobStatus] = {
    E.COMPLETE: S.COMPLETED,
    E.FAIL: S.ERROR,
    E.EXCEED_WALL_TIME: S.WALL_TIME_EXCEEDED,
    E.EXCEED_MEMORY: S.OUT_OF_MEMORY,
    E.FAIL_NODE: S.NODE_FAIL,
    E.PREEMPT: S.PREEMPTED,
    E.CONFIRM_CANCEL: S.CANCELLED,
}
"""Each way a job can end, as the scheduler tells it."""

FINAL = frozenset(ENDS.values())
"""Statuses that only delete and late accounting can touch."""

IN_SCHEDULER = (S.SUBMITTED, S.QUEUED, S.RUNNING)
"""Statuses in which the scheduler has accepted the job."""

OPEN = frozenset({S.PENDING, S.SUBMITTING, *IN_SCHEDULER, S.CANCELLING})
"""Statuses that still wait for an end."""

AT_WORK = OPEN | {S.DELETING}
"""Statuses in which something is still to be done for the job on its cluster."""

NEEDS_ACTION = "needs_action"
"""What blocks a QUEUED job that the scheduler keeps waiting until somebody acts."""

MAY_BE_ON_CLUSTER = (S.PENDING, S.SUBMITTING, *IN_SCHEDULER)
"""PENDING too: a database restored from a backup may hold a PENDING row whose job already ran."""


def _table() -> dict[tuple[JobStatus, Event], JobStatus]:
    table = {
        (S.DRAFT, E.SUBMIT): S.PENDING,
        (S.PENDING, E.CLAIM): S.SUBMITTING,
        (S.SUBMITTING, E.CLAIM): S.SUBMITTING,  # asked again: one more attempt
        (S.SUBMITTING, E.RELEASE): S.PENDING,
        (S.SUBMITTING, E.REJECT): S.ERROR,
        (S.CANCELLING, E.REJECT): S.CANCELLED,
        (S.CANCELLING, E.RELEASE): S.CANCELLED,
        (S.DRAFT, E.CANCEL): S.CANCELLED,
        (S.PENDING, E.CANCEL): S.CANCELLED,
        (S.CANCELLING, E.CANCEL): S.CANCELLING,
        (S.RUNNING, E.QUEUE): S.QUEUED,
        (S.DELETING, E.CONFIRM_DELETE): S.DELETED,
        (S.DELETING, E.DELETE): S.DELETING,
    }
    for status in (S.SUBMITTING, *IN_SCHEDULER):
        table[status, E.CANCEL] = S.CANCELLING
    for status in (S.SUBMITTING, *IN_SCHEDULER, S.CANCELLING):
        table[status, E.DECLARE_LOST] = S.ERROR
    for status in (S.PENDING, S.SUBMITTING, S.SUBMITTED):
        table[status, E.ACCEPT] = S.SUBMITTED
        table[status, E.QUEUE] = S.QUEUED
    for status in (S.PENDING, S.SUBMITTING, S.SUBMITTED, S.QUEUED, S.RUNNING):
        table[status, E.START] = S.RUNNING
    table[S.QUEUED, E.QUEUE] = S.QUEUED
    for status in (S.QUEUED, S.RUNNING, S.CANCELLING):
        table[status, E.ACCEPT] = status
    for event in (E.QUEUE, E.START):
        table[S.CANCELLING, event] = S.CANCELLING
    for status in (*MAY_BE_ON_CLUSTER, S.CANCELLING):
        for event, final in ENDS.items():
            table[status, event] = final
    for status in (*FINAL, S.DELETING, S.DELETED):
        table[status, E.ACCOUNT] = status
    for status in FINAL:
        table[status, E.DELETE] = S.DELETING
    return table


TRANSITIONS = _table()

NEW_RUN_ONLY = frozenset({(S.RUNNING, E.QUEUE)})
"""Requeues: RUNNING goes back to QUEUED only when the restart count has grown."""


def next_status(
    status: JobStatus, event: Event, *, known_run: int = 0, run: int | None = None
) -> JobStatus | None:
    """The status after `event`, or None if the move is illegal.

    An event of an earlier run than the known one is illegal; `run` None means the known one.
    """
    run = known_run if run is None else run
    if run < known_run:
        return None
    if (status, event) in NEW_RUN_ONLY and run <= known_run:
        return None
    return TRANSITIONS.get((status, event))


def legal_events(status: JobStatus) -> frozenset[Event]:
    """The events that `status` accepts."""
    return frozenset(event for (known, event) in TRANSITIONS if known is status)


def diagram() -> str:
    """The page docs/lifecycle.md: the table as a Mermaid diagram and as rows."""
    moves: dict[tuple[JobStatus, JobStatus], list[str]] = {}
    for (before, event), after in TRANSITIONS.items():
        if before is not after:
            name = f"{event.value} *" if (before, event) in NEW_RUN_ONLY else event.value
            moves.setdefault((before, after), []).append(name)
    arrows = [
        f"    {before.name} --> {after.name}: {', '.join(names)}"
        for (before, after), names in sorted(moves.items())
    ]
    rows = [
        f"| {status.name} | {status.value} | {', '.join(sorted(legal_events(status))) or 'none'} |"
        for status in JobStatus
    ]
    return "\n".join(
        [
            "# The life of a job",
            "",
            "Made from the table in `controller/lifecycle.py`; a test holds the two together.",
            "A move marked with * is legal only if the scheduler's restart count has grown.",
            "",
            "```mermaid",
            "stateDiagram-v2",
            "    [*] --> DRAFT",
            *arrows,
            "```",
            "",
            "| status | number | events it accepts |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )
