"""What the store remembers, and how each journal entry changes it; no I/O here.

Rules:
- Events are numbered from 1 without a gap; the outbox holds those that are not acknowledged.
- A job stays among `jobs` until the event of its end is acknowledged; then it is a tombstone.
- Applying the same entries to the same contents gives the same contents: that is how a restart,
  and a successor, come to what the predecessor knew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from cluster_client.journal import Entry
from cluster_client.protocol import messages

SUBMITTING = "submitting"
SUBMITTED = "submitted"
QUEUED = "queued"
RUNNING = "running"
ENDED = "ended"
REJECTED = "rejected"

TOMBSTONE_S = 400 * 86400.0
"""How long a finished job is remembered: longer than any scheduler keeps its ids and names."""


@dataclass(frozen=True)
class JobRecord:
    """One job. `intent_at` is when the newest attempt was noted, before its submit command.

    `cancel_sent_at` is noted before the cancel command runs. `missing_since`: the first good
    query in a row that did not know the job. `final_seq`: the number of the event of its end.
    `is_accounting_due`: it has ended, and what it used is not told yet.
    """

    tag: str
    attempt: int = 0
    limit_s: float = 60.0
    intent_at: float = 0.0
    script_sha256: str = ""
    name: str = ""
    state: str = SUBMITTING
    scheduler_job_id: str = ""
    submitted_at: float = 0.0
    run: int = 0
    outcome: str = ""
    exit_code: Optional[int] = None
    signal: Optional[int] = None
    reason: str = ""
    message: str = ""
    is_transient: bool = False
    scheduler_state: str = ""
    at: float = 0.0
    cancel_requested_at: float = 0.0
    cancel_sent_at: float = 0.0
    missing_since: float = 0.0
    is_blocked: bool = False
    is_accounting_due: bool = False
    final_seq: int = 0
    acknowledged_at: float = 0.0

    @property
    def is_final(self) -> bool:
        return self.state in (ENDED, REJECTED)

    @property
    def is_watched(self) -> bool:
        """The scheduler has it, as far as we know."""
        return bool(self.scheduler_job_id) and self.state != ENDED


_FIELDS = {f.name for f in dataclasses.fields(JobRecord)}


def record_of(fields: dict[str, Any]) -> JobRecord:
    """A record from its JSON form; fields of a newer version are ignored."""
    return JobRecord(**{name: value for name, value in fields.items() if name in _FIELDS})


def fields_of(record: JobRecord) -> dict[str, Any]:
    """The JSON form, without what has its default value."""
    defaults = JobRecord(tag="")
    return {
        name: value
        for name, value in record.__dict__.items()
        if name == "tag" or value != getattr(defaults, name)
    }


@dataclass(frozen=True)
class NewEvent:
    """An event that has no number yet. `at` 0: now."""

    kind: str
    data: messages.Json = field(default_factory=dict)
    at: float = 0.0


@dataclass(frozen=True)
class Change:
    """What one step does: the job's new record, and the events that go with it."""

    record: JobRecord
    events: tuple[NewEvent, ...] = ()


class Contents:
    """Jobs, tombstones and outbox, as the entries so far have made them."""

    def __init__(self) -> None:
        self.outbox_id = ""
        self.epoch = 0
        self.acknowledged_seq = 0
        self.events: list[messages.Event] = []
        self.jobs: dict[str, JobRecord] = {}
        self.tombstones: dict[str, JobRecord] = {}

    @property
    def first_seq(self) -> int:
        return self.acknowledged_seq + 1

    @property
    def last_seq(self) -> int:
        return self.acknowledged_seq + len(self.events)

    def get(self, tag: str) -> Optional[JobRecord]:
        return self.jobs.get(tag) or self.tombstones.get(tag)

    def apply(self, entry: Entry) -> None:
        kind = entry.get("t")
        if kind == "job":
            self._put(record_of(entry["job"]))
            for fields in entry.get("events", ()):
                self.events.append(messages.Event(outbox_id=self.outbox_id, **fields))
        elif kind == "event":
            self.events.append(messages.Event(outbox_id=self.outbox_id, **entry["event"]))
        elif kind == "ack":
            self._acknowledge(entry["seq"], entry["at"])
        elif kind == "epoch":
            self.epoch = max(self.epoch, entry["epoch"])
        elif kind == "outbox":
            self._renumber(entry["outbox_id"])
        elif kind == "head":
            self.outbox_id = entry["outbox_id"]
            self.epoch = entry["epoch"]
            self.acknowledged_seq = entry["acknowledged_seq"]

    def _put(self, record: JobRecord) -> None:
        is_tombstone = record.acknowledged_at > 0
        here, there = self.jobs, self.tombstones
        if is_tombstone:
            here, there = there, here
        there.pop(record.tag, None)
        here[record.tag] = record

    def _acknowledge(self, seq: int, at: float) -> None:
        count = min(seq, self.last_seq) - self.acknowledged_seq
        if count <= 0:
            return
        acknowledged, self.events = self.events[:count], self.events[count:]
        self.acknowledged_seq += count
        for tag in {event.tag for event in acknowledged}:
            record = self.jobs.get(tag)
            if record and record.is_final and 0 < record.final_seq <= self.acknowledged_seq:
                self._put(replace(record, acknowledged_at=at))

    def _renumber(self, outbox_id: str) -> None:
        """Begin a new outbox with the same unacknowledged events, numbered from 1."""
        shift = self.acknowledged_seq
        self.outbox_id = outbox_id
        self.acknowledged_seq = 0
        self.events = [
            replace(event, outbox_id=outbox_id, seq=event.seq - shift) for event in self.events
        ]
        for tag, record in self.jobs.items():
            if record.final_seq:
                self.jobs[tag] = replace(record, final_seq=max(1, record.final_seq - shift))

    def job_entry(self, change: Change, at: float, seq: int) -> Entry:
        """The journal entry of `change`, whose events are numbered from `seq`."""
        record = replace(change.record, at=at)
        if record.is_final and change.events:
            record = replace(record, final_seq=seq + len(change.events) - 1)
        entry: Entry = {"t": "job", "job": fields_of(record)}
        if change.events:
            entry["events"] = [
                {"seq": seq + i, "tag": record.tag, "run": record.run, "kind": event.kind,
                 "at": event.at or at, "data": event.data}
                for i, event in enumerate(change.events)
            ]  # fmt: skip
        return entry

    def entries(self, now: float) -> Iterator[Entry]:
        """All of it as entries that give it again; what is older than TOMBSTONE_S is left out."""
        yield {
            "t": "head", "outbox_id": self.outbox_id, "epoch": self.epoch,
            "acknowledged_seq": self.acknowledged_seq,
        }  # fmt: skip
        for record in (*self.jobs.values(), *self.tombstones.values()):
            age_s = now - (record.acknowledged_at or record.at)
            is_told = record.final_seq <= self.acknowledged_seq
            if not (record.is_final and is_told and age_s > TOMBSTONE_S):
                yield {"t": "job", "job": fields_of(record)}
        for event in self.events:
            fields = {k: v for k, v in event.__dict__.items() if k != "outbox_id"}
            yield {"t": "event", "event": fields}
