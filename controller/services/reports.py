"""PURE: what a client tells of a job, checked and turned into a lifecycle event and columns.

Everything that comes in here may be hostile: only known fields of the right type and size are
kept, and a report that makes no sense is refused with errors.Invalid.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from .. import errors
from ..lifecycle import NEEDS_ACTION, Event

TAG = re.compile(r"[a-z][a-z2-7]{14}")
TEXT_LIMIT = 4000
ID_LIMIT = 200
NAME_LIMIT = 200
WORD = re.compile(r"[a-z0-9_]{1,64}")
LARGEST_INTEGER = 2**31 - 1
LARGEST_FLOAT = 1e15
RETRY_S = 60.0
"""Pause before a submission that was refused for now is tried again."""

OUTCOMES: dict[str, Event] = {
    "completed": Event.COMPLETE,
    "failed": Event.FAIL,
    "refused": Event.FAIL,
    "cancelled": Event.CONFIRM_CANCEL,
    "wall_time_exceeded": Event.EXCEED_WALL_TIME,
    "out_of_memory": Event.EXCEED_MEMORY,
    "node_fail": Event.FAIL_NODE,
    "preempted": Event.PREEMPT,
}


@dataclass(frozen=True)
class Report:
    """`event` None: nothing but a reason to block, or to note.

    `name`: what the script calls the job, for one to which the portal gave no name.
    """

    event: Event | None
    run: int = 0
    cause: str = ""
    happened_at: datetime | None = None
    data: dict[str, Any] = field(default_factory=dict)
    updates: dict[str, Any] = field(default_factory=dict)
    blocked_reason: str = ""
    retry_s: float = 0.0
    name: str = ""


class State(Protocol):
    """What read_state needs of a ClusterJobState."""

    @property
    def state(self) -> str: ...
    @property
    def scheduler_job_id(self) -> str: ...
    @property
    def run(self) -> int: ...
    @property
    def outcome(self) -> str: ...
    @property
    def exit_code(self) -> int | None: ...
    @property
    def signal(self) -> int | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def at(self) -> float: ...


def read(kind: str, run: int, at: float, data: Any) -> Report:
    """The report of an outbox event of `kind`."""
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise errors.Invalid(f"unknown kind of event {_text(str(kind), 64)!r}")
    if not isinstance(data, dict):
        raise errors.Invalid("the data is no object")
    told_run = _integer(run, "run", least=0)
    return reader(told_run or 0, _time(at), data)


def read_state(state: State) -> Report | None:
    """The report of a compared job's state; None if it tells nothing."""
    data = {
        "scheduler_job_id": state.scheduler_job_id,
        "outcome": state.outcome,
        "exit_code": state.exit_code,
        "signal": state.signal,
        "reason": state.reason,
    }
    kind = state.state
    if kind not in ("submitted", "queued", "running", "ended"):
        return None  # submitting, rejected: the next ask tells
    report = read(kind, state.run, state.at, data)
    known_id = _identifier(data)
    if not known_id:
        return report
    updates = {**report.updates, "scheduler_job_id": known_id}
    return Report(**{**vars(report), "updates": updates})


def _submitted(run: int, at: datetime | None, data: dict[str, Any]) -> Report:
    identifier = _identifier(data)
    if not identifier:
        raise errors.Invalid("submitted without a scheduler_job_id")
    kept = {"scheduler_job_id": identifier}
    name = _name(data.get("name"))
    return Report(Event.ACCEPT, run, happened_at=at, data=kept, updates=kept, name=name)


def _queued(run: int, at: datetime | None, data: dict[str, Any]) -> Report:
    reason = _text(data.get("reason", ""))
    if data.get("needs_action") is True:
        return Report(Event.QUEUE, run, reason, at, blocked_reason=NEEDS_ACTION)
    return Report(Event.QUEUE, run, reason, at)


def _running(run: int, at: datetime | None, data: dict[str, Any]) -> Report:
    return Report(Event.START, run, happened_at=at)


def _ended(run: int, at: datetime | None, data: dict[str, Any]) -> Report:
    outcome = data.get("outcome")
    event = OUTCOMES.get(outcome) if isinstance(outcome, str) else None
    if event is None:
        raise errors.Invalid(f"unknown outcome {_text(str(outcome), 64)!r}")
    columns = {
        "exit_code": _integer(data.get("exit_code"), "exit_code"),
        "signal": _integer(data.get("signal"), "signal"),
    }
    kept = {
        "outcome": outcome,
        **columns,
        "scheduler_state": _text(data.get("scheduler_state", "")),
    }
    return Report(event, run, _text(data.get("reason", "")), at, kept, columns)


def _rejected(run: int, at: datetime | None, data: dict[str, Any]) -> Report:
    reason, message = _word(data.get("reason")), _text(data.get("message", ""))
    kept = {"reason": reason, "message": message}
    if data.get("transient") is True:
        return Report(Event.RELEASE, run, message, at, kept, blocked_reason=reason, retry_s=RETRY_S)
    return Report(Event.REJECT, run, message, at, kept)


def _accounting(run: int, at: datetime | None, data: dict[str, Any]) -> Report:
    names = ("elapsed_s", "cpu_s", "max_memory_mib")
    columns = {n: _amount(data[n], n) for n in names if data.get(n) is not None}
    # None: accounting may come late, but always tells of the run that ended.
    return Report(Event.ACCOUNT, run, happened_at=at, data=columns, updates=columns)


def _blocked(run: int, at: datetime | None, data: dict[str, Any]) -> Report:
    message = _text(data.get("message", ""))
    return Report(None, run, message, at, blocked_reason=_word(data.get("reason")))


_READERS = {
    "submitted": _submitted,
    "queued": _queued,
    "running": _running,
    "ended": _ended,
    "rejected": _rejected,
    "accounting": _accounting,
    "blocked": _blocked,
}


def clean_text(value: str, limit: int = TEXT_LIMIT) -> str:
    """The text without what PostgreSQL refuses (NUL, lone surrogates), cut at `limit`."""
    return value[:limit].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _text(value: Any, limit: int = TEXT_LIMIT) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise errors.Invalid("a text was expected")
    return clean_text(value, limit)


def _word(value: Any) -> str:
    if not isinstance(value, str) or not WORD.fullmatch(value):
        raise errors.Invalid("a reason must be one word")
    return value


def _name(value: Any) -> str:
    """One line; an unusable name is none, because the id beside it must not be lost."""
    if not isinstance(value, str):
        return ""
    shown = "".join(letter if letter.isprintable() else " " for letter in value[:NAME_LIMIT])
    return shown.strip()


def _identifier(data: dict[str, Any]) -> str:
    value = data.get("scheduler_job_id", "")
    if not isinstance(value, str) or len(value) > ID_LIMIT or not value.isprintable():
        raise errors.Invalid("no scheduler_job_id")
    return value


def _integer(value: Any, name: str, least: int = -LARGEST_INTEGER) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise errors.Invalid(f"{name} is no whole number")
    if not least <= value <= LARGEST_INTEGER:
        raise errors.Invalid(f"{name} is out of range")
    return value


def _amount(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise errors.Invalid(f"{name} is no number")
    if not 0 <= value <= LARGEST_FLOAT:  # no number at all compares so
        raise errors.Invalid(f"{name} is out of range")
    return float(value)


def _time(at: Any) -> datetime | None:
    """The time told; None if none was (0) or if it makes no sense: a bad clock ends no job."""
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 < at < 1e11:
        return None
    return datetime.fromtimestamp(at, UTC)
