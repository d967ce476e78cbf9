"""What is said when a link comes up, or again when its lease was in doubt.

Hello -> Welcome, then both sides compare the jobs that they hold open, then the first Ack starts
the flow of events from the last one committed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cluster_client.protocol import messages

from . import clock, errors
from .link import HeldLink

logger = logging.getLogger(__name__)

TAGS_AT_ONCE = 1000
"""So many states, with their words, fit a control frame."""

CANCELS_AT_ONCE = 100
"""Jobs that have ended here and run on there: the next greeting does the rest."""


class Records(Protocol):
    """What the greeting needs of the database; called on the writers."""

    def hello(self, cluster_id: int, epoch: int) -> messages.Hello: ...
    def raise_epoch(self, cluster_id: int, epoch: int, generation: int) -> int | None: ...
    def came_up(self, cluster_id: int, epoch: int, welcome: messages.Welcome) -> None: ...
    def open_tags(self, cluster_id: int) -> Sequence[str]: ...
    def reconcile(
        self, cluster_id: int, epoch: int, compared: messages.Compared
    ) -> Sequence[str]: ...
    def cursor(self, cluster_id: int, outbox_id: str) -> int: ...


class MustReconnect(Exception):
    """The client refused, but a new connection may do. `is_forced`: start the daemon anew."""

    def __init__(self, message: str, *, is_forced: bool) -> None:
        super().__init__(message)
        self.is_forced = is_forced


def greet(
    link: HeldLink, records: Records, db: Callable[[int, Callable[[], Any]], Any], deadline_s: float
) -> None:
    """Bring `link` up. Raises MustReconnect, CannotConnect or another LinkError."""
    cluster_id, epoch = link.cluster_id, link.epoch
    link.forget_events()
    hello = db(cluster_id, lambda: records.hello(cluster_id, epoch))
    answer = link.wire.ask(hello, deadline_s).wait()
    if not isinstance(answer, messages.Welcome):
        _refused(link, answer, records, db)
    db(cluster_id, lambda: records.came_up(cluster_id, epoch, answer))
    compared = _compare(link, db(cluster_id, lambda: records.open_tags(cluster_id)), deadline_s)
    ended = db(cluster_id, lambda: records.reconcile(cluster_id, epoch, compared))
    for tag in ended[:CANCELS_AT_ONCE]:
        link.wire.ask(messages.Cancel(tag), deadline_s).wait()
    link.lease.greeted(epoch)

    def start_events() -> None:
        # On the writers, so that no Ack of a batch under way can come before a lower one.
        link.wire.notify(
            messages.Ack(answer.outbox_id, records.cursor(cluster_id, answer.outbox_id))
        )

    db(cluster_id, start_events)
    logger.info(
        "link.up",
        extra={"cluster_id": cluster_id, "epoch": epoch, "host": answer.host, "pid": answer.pid},
    )


def _compare(link: HeldLink, tags: Sequence[str], deadline_s: float) -> messages.Compared:
    """Ask in pieces that fit a frame; `extra` is what no piece named."""
    jobs: list[messages.JobState] = []
    unknown: list[str] = []
    extra: set[str] | None = None
    for start in range(0, max(1, len(tags)), TAGS_AT_ONCE):
        part = tuple(tags[start : start + TAGS_AT_ONCE])
        answer = link.wire.ask(messages.Compare(part), deadline_s).wait()
        if not isinstance(answer, messages.Compared):
            raise errors.CannotConnect("compare_failed", f"The client can't compare: {answer}")
        jobs += answer.jobs
        unknown += answer.unknown
        extra = set(answer.extra) if extra is None else extra & set(answer.extra)
    return messages.Compared(tuple(jobs), tuple(unknown), tuple(sorted(extra or ())))


def _refused(
    link: HeldLink, answer: Any, records: Records, db: Callable[[int, Callable[[], Any]], Any]
) -> None:
    """Always raises: what to do about a refused greeting."""
    if isinstance(answer, messages.Error):
        raise errors.CannotConnect(answer.code, answer.message, transient=answer.transient)
    if answer.code == "stale_epoch":
        # A restored database: this worker still holds the row, so its word counts.
        started_at = clock.now()
        epoch = db(
            link.cluster_id,
            lambda: records.raise_epoch(link.cluster_id, answer.epoch, answer.generation),
        )
        if epoch is not None:
            link.lease.confirm(started_at, clock.now(), epoch)
            raise MustReconnect(answer.message, is_forced=False)
        raise errors.CannotConnect("stale_epoch", answer.message)
    if answer.code in ("retired", "version_mismatch"):
        raise MustReconnect(answer.message, is_forced=answer.code == "version_mismatch")
    raise errors.CannotConnect(answer.code, answer.message, transient=False)
