"""What was done one after the other, with outcome and time, for people to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from . import clock

DONE, SKIPPED, FAILED = "done", "skipped", "failed"


@dataclass(frozen=True)
class Step:
    """One step; `detail` is a sentence without secrets."""

    name: str
    outcome: str
    took_s: float
    detail: str = ""


Record = Callable[[Step], None]


@dataclass
class Note:
    """What a step that is under way says about itself."""

    detail: str = ""
    outcome: str = DONE

    def skip(self, why: str) -> None:
        self.outcome, self.detail = SKIPPED, why


def unrecorded(step: Step) -> None:
    """Where nobody reads them."""


@contextmanager
def step(record: Record, name: str) -> Iterator[Note]:
    """Record what happens inside, whatever comes of it."""
    begun_at = clock.now()
    note = Note()
    try:
        yield note
    except Exception as problem:
        record(Step(name, FAILED, clock.now() - begun_at, str(problem)))
        raise
    record(Step(name, note.outcome, clock.now() - begun_at, note.detail))
