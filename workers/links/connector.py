"""Makes links, greets over them, makes them anew, and lets go of them; on a few threads of its own.

The calls of one cluster come in order. A link that can't be made is given back: its lease is
released, the reason is recorded, and anyone may try again when its pause is over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from . import carriers, clock, connection, errors, greeting, lease, pool, silence, watchdog
from .link import HeldLink, State

logger = logging.getLogger(__name__)

T = TypeVar("T")
Db = Callable[[int, Callable[[], T]], T]
"""Runs a call on the writers, in the cluster's order, and returns what it returns."""

STEADY_S = 10.0
"""A link that lasted so long was a good one: its loss is tried again at once."""


class Records(greeting.Records, Protocol):
    """What connecting needs of the world."""

    def connect(
        self, cluster_id: int, epoch: int, is_forced: bool, call: Db[Any]
    ) -> carriers.Channel: ...
    def went_down(self, cluster_id: int, epoch: int, detail: str) -> None: ...
    def blocked(
        self, cluster_id: int, epoch: int, reason: str, detail: str, retry_in_s: float | None
    ) -> None: ...
    def release(self, cluster_id: int, epoch: int) -> None: ...
    def changed(self) -> None: ...


@dataclass(frozen=True)
class Pace:
    """Intervals and limits, in seconds unless named otherwise."""

    renew_s: float = 3.0
    mute_s: float = 7.0
    tick_s: float = 1.0
    sweep_s: float = 15.0
    release_s: float = 5.0
    ping_interval_s: float = 5.0
    ping_deadline_s: float = 15.0
    request_deadline_s: float = 30.0
    connect_limit_s: float = 20.0
    retry_min_s: float = 1.0
    retry_max_s: float = 300.0
    writers: int = 4
    connectors: int = 8
    sweepers: int = 5
    cancellers: int = 3


def quietly(run: Callable[[], object]) -> None:
    """On the way out a failure is logged, and the way out goes on."""
    try:
        run()
    except Exception:
        logger.warning("link.step_failed", exc_info=True)


class Connector:
    """`came_up` and `gone` are told of links that are up, and of those that were let go."""

    def __init__(
        self,
        records: Records,
        pace: Pace,
        dog: watchdog.Watchdog,
        db: Db[Any],
        came_up: Callable[[HeldLink], None],
        gone: Callable[[HeldLink], None],
    ) -> None:
        self._records = records
        self._pace = pace
        self._dog = dog
        self._db = db
        self._came_up = came_up
        self._gone = gone
        self._pool = pool.KeyedPool("hpc-connector", pace.connectors)
        self._failures: dict[int, int] = {}
        self._silences = silence.Silences()

    def close(self, limit_s: float) -> None:
        """End the threads."""
        self._pool.close(limit_s)

    # Connecting ---------------------------------------------------------------------------------

    def connect(self, link: HeldLink) -> None:
        """Connect and greet, on a thread of the pool."""
        self._pool.post(link.cluster_id, lambda: self._connect(link))

    def greet_again(self, link: HeldLink) -> None:
        """Greet anew over the same connection, after a lease in doubt."""
        if self._pool.is_idle(link.cluster_id):
            self._pool.post(link.cluster_id, lambda: self._greet_again(link))

    def _connect(self, link: HeldLink) -> None:
        if not link.become(State.CONNECTING):
            return
        is_forced = self._silences.must_force(link.cluster_id, clock.now())
        try:
            self._open(link, is_forced)
            try:
                self._greet(link)
            except greeting.MustReconnect as refusal:
                link.close(str(refusal))
                self._open(link, refusal.is_forced)
                self._greet(link)
            self._silences.answered(link.cluster_id)
        except errors.CannotConnect as problem:
            self._note_silence(link, problem.reason)
            self._give_back(link, problem)
        except greeting.MustReconnect as problem:
            self._give_back(link, errors.CannotConnect("refused", str(problem)))
        except errors.LinkError as problem:
            self._note_silence(link, problem.code)
            self._give_back(link, errors.CannotConnect(problem.code, str(problem)))
        except Exception as problem:
            logger.exception("link.connect_failed", extra={"cluster_id": link.cluster_id})
            self._give_back(link, errors.CannotConnect("failed", repr(problem)))

    def _note_silence(self, link: HeldLink, reason: str) -> None:
        if reason in (errors.NO_DAEMON, errors.NoAnswer.code):
            self._silences.unanswered(link.cluster_id)

    def _open(self, link: HeldLink, is_forced: bool) -> None:
        channel = self._records.connect(link.cluster_id, link.epoch, is_forced, self._db)
        try:
            link.attach(
                connection.Connection(
                    channel,
                    link,
                    self._dog,
                    name=f"hpc-link-{link.cluster_id}",
                    ping_interval_s=self._pace.ping_interval_s,
                    connect_limit_s=self._pace.connect_limit_s,
                )
            )
        except BaseException:
            channel.close()
            raise

    def _greet(self, link: HeldLink) -> None:
        greeting.greet(link, self._records, self._db, self._pace.request_deadline_s)
        link.came_up_at = clock.now()
        if not link.become(State.UP):
            return
        if not link.is_connected:
            raise errors.LinkClosed("The link ended right after the greeting.")
        self._came_up(link)

    def _greet_again(self, link: HeldLink) -> None:
        """After a doubtful lease, over the same link."""
        if link.state is not State.UP or not link.lease.is_mute(clock.now()):
            return
        try:
            self._greet(link)
        except Exception as problem:
            logger.warning(
                "link.greeting_failed", extra={"cluster_id": link.cluster_id}, exc_info=True
            )
            if link.lease.is_sure(clock.now()):
                self.reconnect(link, f"The greeting failed: {problem}")

    def lost(self, link: HeldLink, reason: str) -> None:
        """Told by a link's reader: the connection is gone."""
        if link.state is State.UP and not link.is_connected:
            logger.warning("link.lost", extra={"cluster_id": link.cluster_id, "reason": reason})
            self.reconnect(link, reason)

    def reconnect(self, link: HeldLink, reason: str, is_asked: bool = False) -> None:
        """Give up a connection that was up, and make another; `is_asked`: no failure."""
        if not link.become(State.CONNECTING, only_from=State.UP):
            return
        self._records.changed()
        was_steady = clock.now() - link.came_up_at >= STEADY_S

        def run() -> None:
            link.close(reason)
            quietly(lambda: self._record_down(link, reason))
            failures = 0 if was_steady or is_asked else self._failures.get(link.cluster_id, 0) + 1
            self._failures[link.cluster_id] = failures
            if failures > 1:
                self._give_back(link, errors.CannotConnect("unsteady", reason), is_counted=True)
            else:
                self._connect(link)

        self._pool.post(link.cluster_id, run)

    # Letting go ---------------------------------------------------------------------------------

    def _give_back(
        self, link: HeldLink, problem: errors.CannotConnect, is_counted: bool = False
    ) -> None:
        """The cluster can't be reached: say why, release the lease, let anyone try later."""
        failures = self._failures.get(link.cluster_id, 0) + (0 if is_counted else 1)
        self._failures[link.cluster_id] = failures
        retry_in_s = None
        if problem.transient:
            retry_in_s = max(
                problem.pause_s,
                lease.retry_delay_s(failures, self._pace.retry_min_s, self._pace.retry_max_s),
            )
        logger.warning(
            "link.failed",
            extra={
                "cluster_id": link.cluster_id,
                "reason": problem.reason,
                "detail": str(problem),
                "retry_in_s": retry_in_s,
            },
        )
        link.become(State.CLOSING)
        link.close(str(problem))
        cluster_id, epoch = link.cluster_id, link.epoch
        quietly(
            lambda: self._db(
                cluster_id,
                lambda: self._records.blocked(
                    cluster_id, epoch, problem.reason, str(problem), retry_in_s
                ),
            )
        )
        self._let_go(link)

    def drop(self, link: HeldLink, reason: str, drain_s: float) -> Future[None]:
        """Close a link in order: no new requests, those asked are answered, lease released."""
        link.become(State.CLOSING)
        self._records.changed()

        def run() -> None:
            ends_at = clock.now() + drain_s
            while link.is_connected and link.wire.asked and clock.now() < ends_at:
                time.sleep(0.05)
            link.close(reason)
            quietly(lambda: self._record_down(link, reason))
            self._let_go(link)
            logger.info("link.released", extra={"cluster_id": link.cluster_id, "reason": reason})

        return self._pool.post(link.cluster_id, run)

    def _record_down(self, link: HeldLink, reason: str) -> None:
        self._db(
            link.cluster_id,
            lambda: self._records.went_down(link.cluster_id, link.epoch, reason),
        )

    def _let_go(self, link: HeldLink) -> None:
        quietly(
            lambda: self._db(
                link.cluster_id, lambda: self._records.release(link.cluster_id, link.epoch)
            )
        )
        self._gone(link)
