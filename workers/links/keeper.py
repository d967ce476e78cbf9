"""Keeps the links of one process: takes leases, connects, renews, gives up, lets go.

Threads: one renews all leases, one looks for work each second, a few connect, a few write to the
database, a few sweep. None of them is a link's reader or writer, and those never wait for a
database. All that needs Django or the cluster's fields comes as `Callbacks`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cluster_client.protocol import messages

from . import carriers, clock, connection, errors, greeting, lease, pool, watchdog
from .link import HeldLink, State

logger = logging.getLogger(__name__)

T = TypeVar("T")
Db = Callable[[int, Callable[[], T]], T]

DB_LIMIT_S = 60.0
STEADY_S = 10.0
"""A link that lasted so long was a good one: its loss is tried again at once."""
NUDGE_S = 5.0
UPKEEP = "upkeep"
CLOSE_LIMIT_S = 8.0
"""A link that can't be let go in this time is left to the end of its lease."""


@dataclass(frozen=True)
class Requests:
    """What people asked for, of the clusters held here."""

    bootstrap: frozenset[int] = frozenset()
    unwanted: frozenset[int] = frozenset()


class Callbacks(greeting.Records, Protocol):
    """What the keeper needs of the world; may raise anything, which is then logged."""

    def tidy(self) -> None: ...
    def heartbeat(self, is_draining: bool) -> None: ...
    def forget(self) -> None: ...
    def share(self) -> int: ...
    def candidates(self, limit: int) -> Sequence[int]: ...
    def take(self, cluster_id: int) -> int | None: ...
    def renew(self, cluster_ids: Iterable[int]) -> set[int]: ...
    def release(self, cluster_id: int, epoch: int) -> None: ...
    def requested(self, cluster_ids: Iterable[int]) -> Requests: ...
    def clear_request(self, cluster_id: int, epoch: int) -> None: ...
    def connect(
        self, cluster_id: int, epoch: int, is_forced: bool, call: Db[T]
    ) -> carriers.Channel: ...
    def went_down(self, cluster_id: int, epoch: int, detail: str) -> None: ...
    def blocked(
        self, cluster_id: int, epoch: int, reason: str, detail: str, retry_in_s: float | None
    ) -> None: ...
    def receive(
        self, cluster_id: int, epoch: int, outbox_id: str, events: Sequence[messages.Event]
    ) -> int: ...
    def polled(self, cluster_id: int, epoch: int, polled: messages.Polled) -> None: ...
    def sweep(self, link: HeldLink) -> None: ...
    def upkeep(self) -> None: ...
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
    sweepers: int = 8


class Keeper:
    """Holds this process's share of the links."""

    def __init__(self, callbacks: Callbacks, pace: Pace) -> None:
        self._callbacks = callbacks
        self._pace = pace
        self._lock = threading.Lock()
        self._held: dict[int, HeldLink] = {}
        self._failures: dict[int, int] = {}
        self._released_at = 0.0
        self._nudged_at = 0.0
        self._kept_up_at = 0.0
        self._has_beaten = threading.Event()
        self._is_draining = threading.Event()
        self._is_stopped = threading.Event()
        self._is_woken = threading.Event()
        self._threads: list[threading.Thread] = []

    # Life ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to hold links."""
        self._dog = watchdog.Watchdog(self._pace.ping_deadline_s)
        self._writers = pool.KeyedPool("hpc-writer", self._pace.writers, self._callbacks.tidy)
        self._connectors = pool.KeyedPool("hpc-connector", self._pace.connectors)
        self._sweepers = pool.KeyedPool("hpc-sweeper", self._pace.sweepers, self._callbacks.tidy)
        for name, run in (("hpc-renewer", self._renew_loop), ("hpc-keeper", self._keep_loop)):
            thread = threading.Thread(target=run, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def drain(self) -> None:
        """Take and sweep nothing more; leases are renewed and events stored until `close`."""
        self._is_draining.set()

    def close(self) -> None:
        """Let go of everything: close links, release leases, end the threads."""
        if not self._threads or self._is_stopped.is_set():
            return
        self._is_draining.set()
        drops = [self._drop(link, "The worker stops.", 0.0) for link in self._links()]
        left = wait(drops, timeout=CLOSE_LIMIT_S).not_done
        if left:
            logger.warning("keeper.links_left", extra={"count": len(left)})
        self._is_stopped.set()
        self._is_woken.set()
        for thread in self._threads:
            thread.join(self._pace.renew_s + 2)
        self._quietly(self._callbacks.forget)
        for workers in (self._sweepers, self._connectors, self._writers):
            workers.close(2.0)
        self._dog.stop()
        self._quietly(self._callbacks.tidy)

    # What others may ask ------------------------------------------------------------------------

    def link_of(self, cluster_id: int) -> HeldLink | None:
        """The link to use, or None: not held here, or not up."""
        with self._lock:
            link = self._held.get(cluster_id)
        return link if link is not None and link.state is State.UP else None

    def up_ids(self) -> set[int]:
        """The clusters whose tasks this process takes now."""
        return {link.cluster_id for link in self._links() if not link.is_mute}

    @property
    def is_draining(self) -> bool:
        return self._is_draining.is_set()

    def wake(self) -> None:
        """Look for work at once."""
        self._is_woken.set()

    def look_after(self, cluster_id: int) -> None:
        """Take the link if it is free, wanted or not; one that is not is let go once it was up."""
        with self._lock:
            is_held = cluster_id in self._held
        if not is_held and not self.is_draining:
            self._take(cluster_id)
        self.wake()

    def _take(self, cluster_id: int) -> None:
        """Take a lease for this process if it is free, and connect."""
        started_at = clock.now()
        epoch = self._callbacks.take(cluster_id)
        if epoch is None:
            return
        link = HeldLink(
            cluster_id,
            lease.Lease(epoch, started_at, self._pace.mute_s),
            post=lambda run: self._writers.post(cluster_id, run),
            commit=self._commit,
            on_polled=self._polled,
            on_lost=self._lost,
        )
        with self._lock:
            if cluster_id in self._held:
                return
            self._held[cluster_id] = link
        logger.info("link.taken", extra={"cluster_id": cluster_id, "epoch": epoch})
        self._connect_soon(link)

    def _links(self) -> list[HeldLink]:
        with self._lock:
            return list(self._held.values())

    # Renewal ------------------------------------------------------------------------------------

    def _renew_loop(self) -> None:
        while not self._is_stopped.is_set():
            started_at = clock.now()
            try:
                self._callbacks.tidy()
                self._renew(started_at)
                self._has_beaten.set()
            except Exception:
                logger.warning("lease.not_renewed", exc_info=True)
            self._is_stopped.wait(max(0.1, self._pace.renew_s - (clock.now() - started_at)))
        self._quietly(self._callbacks.tidy)

    def _renew(self, started_at: float) -> None:
        links = self._links()
        ours = self._callbacks.renew([link.cluster_id for link in links]) if links else set()
        for link in links:
            if link.cluster_id in ours:
                if link.lease.confirm(started_at, clock.now()) and link.state is State.UP:
                    self._greet_soon(link)
            elif link.state is not State.CLOSING:
                self._take_again(link, started_at)
        self._callbacks.heartbeat(self.is_draining)

    def _take_again(self, link: HeldLink, started_at: float) -> None:
        epoch = None if self.is_draining else self._callbacks.take(link.cluster_id)
        if epoch is None:
            logger.warning("lease.lost", extra={"cluster_id": link.cluster_id})
            self._drop(link, "Another worker has taken this link over.", 0.0)
            return
        link.lease.confirm(started_at, clock.now(), epoch)
        if link.state is State.UP:
            self._greet_soon(link)

    # Looking for work ---------------------------------------------------------------------------

    def _keep_loop(self) -> None:
        while not self._is_stopped.is_set():
            self._is_woken.wait(self._pace.tick_s)
            self._is_woken.clear()
            try:
                self._callbacks.tidy()
                self._tick(clock.now())
            except Exception:
                logger.warning("keeper.tick_failed", exc_info=True)
        self._quietly(self._callbacks.tidy)

    def _tick(self, now: float) -> None:
        for link in self._links():
            link.flush_due(now)
        if now - self._nudged_at >= NUDGE_S:
            self._nudged_at = now
            self._callbacks.changed()
        if self.is_draining:
            return
        self._sweep_due(now)
        self._obey_requests()
        if self._has_beaten.is_set():
            self._balance(now)

    def _sweep_due(self, now: float) -> None:
        if now - self._kept_up_at >= self._pace.sweep_s and self._sweepers.is_idle(UPKEEP):
            self._kept_up_at = now
            self._sweepers.post(UPKEEP, lambda: self._quietly(self._callbacks.upkeep))
        for link in self._links():
            if not link.is_mute and now - link.swept_at >= self._pace.sweep_s:
                self._sweep_soon(link)

    def _obey_requests(self) -> None:
        links = {link.cluster_id: link for link in self._links() if link.state is not State.CLOSING}
        if not links:
            return
        requests = self._callbacks.requested(list(links))
        for cluster_id in requests.unwanted & links.keys():
            if links[cluster_id].state is State.UP:
                self._drop(links[cluster_id], "The link is not wanted.", 5.0)
        for cluster_id in (requests.bootstrap - requests.unwanted) & links.keys():
            self._callbacks.clear_request(cluster_id, links[cluster_id].epoch)
            self._reconnect(links[cluster_id], "Someone asked to see to the daemon.", True)

    def _balance(self, now: float) -> None:
        share = self._callbacks.share()
        held = [link for link in self._links() if link.state is not State.CLOSING]
        up = [link for link in held if link.state is State.UP]  # others end by themselves
        is_time = now - self._released_at >= self._pace.release_s
        if up and is_time and lease.to_give_up(len(held), share):
            self._released_at = now
            self._drop(up[-1], "Another worker has room for this link.", 5.0)
        wanted = lease.to_take(len(held), share)
        for cluster_id in self._callbacks.candidates(wanted) if wanted else ():
            with self._lock:
                is_held = cluster_id in self._held
            if not is_held:
                self._take(cluster_id)

    # Connecting ---------------------------------------------------------------------------------

    def _connect_soon(self, link: HeldLink) -> None:
        self._connectors.post(link.cluster_id, lambda: self._connect(link))

    def _greet_soon(self, link: HeldLink) -> None:
        if self._connectors.is_idle(link.cluster_id):
            self._connectors.post(link.cluster_id, lambda: self._greet_again(link))

    def _connect(self, link: HeldLink) -> None:
        if not link.become(State.CONNECTING):
            return
        try:
            self._open(link, is_forced=False)
            try:
                self._greet(link)
            except greeting.MustReconnect as refusal:
                link.close(str(refusal))
                self._open(link, refusal.is_forced)
                self._greet(link)
        except errors.CannotConnect as problem:
            self._give_back(link, problem)
        except greeting.MustReconnect as problem:
            self._give_back(link, errors.CannotConnect("refused", str(problem)))
        except errors.LinkError as problem:
            self._give_back(link, errors.CannotConnect(problem.code, str(problem)))
        except Exception as problem:
            logger.exception("link.connect_failed", extra={"cluster_id": link.cluster_id})
            self._give_back(link, errors.CannotConnect("failed", repr(problem)))

    def _open(self, link: HeldLink, is_forced: bool) -> None:
        channel = self._callbacks.connect(link.cluster_id, link.epoch, is_forced, self._db)
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
        greeting.greet(link, self._callbacks, self._db, self._pace.request_deadline_s)
        link.came_up_at = clock.now()
        if not link.become(State.UP):
            return
        if not link.is_connected:
            raise errors.LinkClosed("The link ended right after the greeting.")
        self._callbacks.changed()
        self._sweep_soon(link)

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
                self._reconnect(link, f"The greeting failed: {problem}")

    def _lost(self, link: HeldLink, reason: str) -> None:
        """Told by a link's reader: the connection is gone."""
        if link.state is State.UP and not link.is_connected:
            logger.warning("link.lost", extra={"cluster_id": link.cluster_id, "reason": reason})
            self._reconnect(link, reason)

    def _reconnect(self, link: HeldLink, reason: str, is_asked: bool = False) -> None:
        if not link.become(State.CONNECTING, only_from=State.UP):
            return
        self._callbacks.changed()
        was_steady = clock.now() - link.came_up_at >= STEADY_S

        def run() -> None:
            link.close(reason)
            self._quietly(lambda: self._record_down(link, reason))
            failures = 0 if was_steady or is_asked else self._failures.get(link.cluster_id, 0) + 1
            self._failures[link.cluster_id] = failures
            if failures > 1:
                self._give_back(link, errors.CannotConnect("unsteady", reason), is_counted=True)
            else:
                self._connect(link)

        self._connectors.post(link.cluster_id, run)

    # Letting go ---------------------------------------------------------------------------------

    def _give_back(
        self, link: HeldLink, problem: errors.CannotConnect, is_counted: bool = False
    ) -> None:
        """The cluster can't be reached: say why, release the lease, let anyone try later."""
        failures = self._failures.get(link.cluster_id, 0) + (0 if is_counted else 1)
        self._failures[link.cluster_id] = failures
        retry_in_s = None
        if problem.transient:
            retry_in_s = lease.retry_delay_s(
                failures, self._pace.retry_min_s, self._pace.retry_max_s
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
        self._quietly(
            lambda: self._db(
                cluster_id,
                lambda: self._callbacks.blocked(
                    cluster_id, epoch, problem.reason, str(problem), retry_in_s
                ),
            )
        )
        self._let_go(link)

    def _drop(self, link: HeldLink, reason: str, drain_s: float) -> Future[None]:
        """Close a link in order: no new requests, those asked are answered, lease released."""
        link.become(State.CLOSING)
        self._callbacks.changed()

        def run() -> None:
            ends_at = clock.now() + drain_s
            while link.is_connected and link.wire.asked and clock.now() < ends_at:
                self._is_stopped.wait(0.05)
            link.close(reason)
            self._quietly(lambda: self._record_down(link, reason))
            self._let_go(link)
            logger.info("link.released", extra={"cluster_id": link.cluster_id, "reason": reason})

        return self._connectors.post(link.cluster_id, run)

    def _record_down(self, link: HeldLink, reason: str) -> None:
        self._db(
            link.cluster_id,
            lambda: self._callbacks.went_down(link.cluster_id, link.epoch, reason),
        )

    def _let_go(self, link: HeldLink) -> None:
        self._quietly(
            lambda: self._db(
                link.cluster_id, lambda: self._callbacks.release(link.cluster_id, link.epoch)
            )
        )
        with self._lock:
            if self._held.get(link.cluster_id) is link:
                del self._held[link.cluster_id]
        self._callbacks.changed()

    # Small services -----------------------------------------------------------------------------

    def _db(self, cluster_id: int, run: Callable[[], T]) -> T:
        """Run on the writers, in the cluster's order; never called by a writer itself."""
        return self._writers.call(cluster_id, run, DB_LIMIT_S)

    def _commit(self, link: HeldLink, events: list[messages.Event]) -> int:
        return self._callbacks.receive(link.cluster_id, link.epoch, events[0].outbox_id, events)

    def _polled(self, link: HeldLink, polled: messages.Polled) -> None:
        self._quietly(lambda: self._callbacks.polled(link.cluster_id, link.epoch, polled))

    def _sweep_soon(self, link: HeldLink) -> None:
        link.swept_at = clock.now()
        if self._sweepers.is_idle(link.cluster_id):
            self._sweepers.post(link.cluster_id, lambda: self._sweep(link))

    def _sweep(self, link: HeldLink) -> None:
        if self.is_draining or link.is_mute:
            return
        try:
            self._callbacks.sweep(link)
        except Exception:
            logger.exception("sweep.failed", extra={"cluster_id": link.cluster_id})

    @staticmethod
    def _quietly(run: Callable[[], object]) -> None:
        """On the way out a failure is logged, and the way out goes on."""
        try:
            run()
        except Exception:
            logger.warning("keeper.step_failed", exc_info=True)
