"""Asks the scheduler's accounting: how jobs that left the queue ended, and what ended jobs used.

Rules:
- One query for all jobs that are in question, with the status query that raised the question.
- A job that stays absent is asked for seldom; an accounting that fails is left in peace for a
  while, and the queue's word alone counts.
- An end whose cause the accounting may know better waits for a few polls, not longer.
- What a job used may come late: it is asked for with growing pauses, up to GIVEN_UP_S.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Optional

from cluster_client import errors, evidence, schedulers
from cluster_client.batch_system import BatchSystem
from cluster_client.job_records import ENDED, Change, JobRecord
from cluster_client.job_store import JobStore, Step
from cluster_client.schedulers import JobRef, Sighting

logger = logging.getLogger(__name__)

PATIENCE = 4
"""Polls; after a hint they come within 1.5 s (see pace)."""

GIVEN_UP_S = 6 * 3600.0
_SELDOM = 30
_JOBS_IN_A_QUERY = 500
_FIRST_PAUSE_S = 1.0
_PAUSE_CAP_S = 300.0
_FIRST_REST_S = 10.0


@dataclass
class _Due:
    """When the accounting of an ended job is asked for next (monotonic)."""

    at: float
    pause_s: float = _FIRST_PAUSE_S


@dataclass(frozen=True)
class View:
    """What is known of the jobs after both queries; of `undecided` ones nothing follows yet."""

    sightings: Mapping[str, Sighting]
    undecided: frozenset[str] = frozenset()


class Accountant:
    """Used by the watcher's thread alone."""

    def __init__(self, store: JobStore, batch: BatchSystem) -> None:
        self._store = store
        self._batch = batch
        self._asked: dict[str, int] = {}
        self._due: dict[str, _Due] = {}
        self._failures = 0
        self._rests_until = 0.0

    def load(self) -> None:
        """Take up what a predecessor has left due."""
        now = time.monotonic()
        for record in (*self._store.jobs.values(), *self._store.tombstones.values()):
            if record.is_accounting_due:
                self._due[record.tag] = _Due(now)

    @property
    def has_accounting(self) -> bool:
        return self._batch.scheduler.capabilities().has_accounting

    def consult(self, jobs: Sequence[JobRef], seen: Mapping[str, Sighting]) -> View:
        """`seen`, with what the accounting adds about those that are ended or absent."""
        asked = [job for job in jobs if self._is_in_question(job.tag, seen.get(job.tag))]
        told = self._ask(asked)
        if told is None:
            return View(seen)
        merged = dict(seen)
        for tag, sighting in told.items():
            before = seen.get(tag) or Sighting(schedulers.ABSENT)
            merged[tag] = evidence.with_accounting(before, sighting)
        undecided = frozenset(
            tag
            for tag, sighting in merged.items()
            if sighting.is_provisional and self._asked.get(tag, 0) < PATIENCE
        )
        return View(merged, undecided)

    def _is_in_question(self, tag: str, seen: Optional[Sighting]) -> bool:
        if seen is not None and seen.state != schedulers.ENDED:
            self._asked.pop(tag, None)
            return False
        count = self._asked[tag] = self._asked.get(tag, 0) + 1
        return count <= PATIENCE or count % _SELDOM == 0

    def _ask(self, jobs: Sequence[JobRef]) -> Optional[dict[str, Sighting]]:
        """None if it can't be asked now."""
        if not jobs or time.monotonic() < self._rests_until:
            return None
        try:
            answers = [
                self._batch.accounting(jobs[start : start + _JOBS_IN_A_QUERY])
                for start in range(0, len(jobs), _JOBS_IN_A_QUERY)
            ]
        except errors.CommandFailed as error:
            self._failures += 1
            pause_s = min(_PAUSE_CAP_S, _FIRST_REST_S * 2.0 ** min(self._failures - 1, 8))
            self._rests_until = time.monotonic() + pause_s
            logger.warning("accounting without effect", extra={"cause": str(error)})
            return None
        self._failures = 0
        told = [answer for answer in answers if answer is not None]
        return (
            {tag: sighting for answer in told for tag, sighting in answer.items()} if told else None
        )

    # What ended jobs used -----------------------------------------------------------------------

    def note(self, tags: Sequence[str]) -> None:
        """Look which of these jobs have ended without their accounting."""
        for tag in tags:
            record = self._store.get(tag)
            if record is None or record.state != ENDED:
                continue
            self._asked.pop(tag, None)
            if record.is_accounting_due:
                self._due.setdefault(tag, _Due(time.monotonic() + _FIRST_PAUSE_S))

    def next_at(self) -> Optional[float]:
        """When `tell_due` has something to do (monotonic); None: nothing is due."""
        if not self._due:
            return None
        return max(self._rests_until, min(due.at for due in self._due.values()))

    def tell_due(self) -> None:
        """Ask for what is due, and store what is told as events."""
        now = time.monotonic()
        next_at = self.next_at()
        if next_at is None or now < next_at:
            return
        records = {tag: self._store.get(tag) for tag, due in self._due.items() if due.at <= now}
        jobs = [JobRef(tag, r.scheduler_job_id) for tag, r in records.items() if r is not None]
        told = self._ask(jobs) or {}
        steps = [(tag, _step(told.get(tag))) for tag in records]
        self._store.update_many(steps)
        for tag in records:
            newest = self._store.get(tag)
            due = self._due[tag]
            due.at, due.pause_s = now + due.pause_s, min(_PAUSE_CAP_S, 2 * due.pause_s)
            if newest is None or not newest.is_accounting_due:
                del self._due[tag]


def _step(told: Optional[Sighting]) -> Step:
    def step(record: Optional[JobRecord]) -> Optional[Change]:
        if record is None:
            return None
        if told is not None and told.usage is not None:
            return evidence.accounted(record, told)
        if record.is_accounting_due and time.time() - record.at > GIVEN_UP_S:
            return Change(replace(record, is_accounting_due=False))
        return None

    return step
