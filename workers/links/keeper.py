"""Keeps the links of one process: takes leases, connects, renews, gives up, lets go.

Threads: one renews all leases, one looks for work each second, a few connect, a few write to the
database, a few sweep, a few cancel. None of them is a link's reader or writer, and those never
wait for a database. All that needs Django or the cluster's fields comes as `Callbacks`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cluster_client.protocol import messages

from . import clock, connector, lease, pool, watchdog
from .connector import Pace, quietly
from .link import HeldLink, State

logger = logging.getLogger(__name__)

T = TypeVar("T")

DB_LIMIT_S = 60.0
NUDGE_S = 5.0
UPKEEP = "upkeep"
CLOSE_LIMIT_S = 8.0
"""A link that can't be let go in this time is left to the end of its lease."""


@dataclass(frozen=True)
class Requests:
    """What people asked for, of the clusters held here."""

    bootstrap: frozenset[int] = frozenset()
    unwanted: frozenset[int] = frozenset()


class Callbacks(connector.Records, Protocol):
    """What the keeper needs of the world; may raise anything, which is then logged."""

    def tidy(self) -> None: ...
    def heartbeat(self, is_draining: bool) -> None: ...
    def forget(self) -> None: ...
    def share(self) -> int: ...
    def candidates(self, limit: int) -> Sequence[int]: ...
    def take(self, cluster_id: int) -> int | None: ...
    def renew(self, cluster_ids: Iterable[int]) -> set[int]: ...
    def requested(self, cluster_ids: Iterable[int]) -> Requests: ...
    def clear_request(self, cluster_id: int, epoch: int) -> None: ...
    def receive(
        self, cluster_id: int, epoch: int, outbox_id: str, events: Sequence[messages.Event]
    ) -> int: ...
    def polled(self, cluster_id: int, epoch: int, polled: messages.Polled) -> None: ...
    def sweep(self, link: HeldLink) -> bool: ...
    def cancel(self, link: HeldLink) -> None: ...
    def upkeep(self) -> None: ...


class Keeper:
    """Holds this process's share of the links."""

    def __init__(self, callbacks: Callbacks, pace: Pace) -> None:
        self._callbacks = callbacks
        self._pace = pace
        self._lock = threading.Lock()
        self._held: dict[int, HeldLink] = {}
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
        self._connector = connector.Connector(
            self._callbacks, self._pace, self._dog, self._db, self._came_up, self._gone
        )
        self._sweepers = pool.KeyedPool("hpc-sweeper", self._pace.sweepers, self._callbacks.tidy)
        self._cancellers = pool.KeyedPool(
            "hpc-canceller", self._pace.cancellers, self._callbacks.tidy
        )
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
        drops = [self._connector.drop(link, "The worker stops.", 0.0) for link in self._links()]
        left = wait(drops, timeout=CLOSE_LIMIT_S).not_done
        if left:
            logger.warning("keeper.links_left", extra={"count": len(left)})
        self._is_stopped.set()
        self._is_woken.set()
        for thread in self._threads:
            thread.join(self._pace.renew_s + 2)
        quietly(self._callbacks.forget)
        self._sweepers.close(2.0)
        self._cancellers.close(2.0)
        self._connector.close(2.0)
        self._writers.close(2.0)
        self._dog.stop()
        quietly(self._callbacks.tidy)

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
            on_lost=self._connector.lost,
        )
        with self._lock:
            is_held = cluster_id in self._held
            if not is_held:
                self._held[cluster_id] = link
        if is_held:  # by a link on its way out, whose lease was free already
            self._callbacks.release(cluster_id, epoch)
            return
        logger.info("link.taken", extra={"cluster_id": cluster_id, "epoch": epoch})
        self._connector.connect(link)

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
        quietly(self._callbacks.tidy)

    def _renew(self, started_at: float) -> None:
        links = self._links()
        ours = self._callbacks.renew([link.cluster_id for link in links]) if links else set()
        for link in links:
            if link.cluster_id in ours:
                if link.lease.confirm(started_at, clock.now()) and link.state is State.UP:
                    self._connector.greet_again(link)
            elif link.state is not State.CLOSING:
                self._take_again(link, started_at)
        self._callbacks.heartbeat(self.is_draining)

    def _take_again(self, link: HeldLink, started_at: float) -> None:
        epoch = None if self.is_draining else self._callbacks.take(link.cluster_id)
        if epoch is None:
            logger.warning("lease.lost", extra={"cluster_id": link.cluster_id})
            self._connector.drop(link, "Another worker has taken this link over.", 0.0)
            return
        link.lease.confirm(started_at, clock.now(), epoch)
        if link.state is State.UP:
            self._connector.greet_again(link)

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
        quietly(self._callbacks.tidy)

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
            self._sweepers.post(UPKEEP, lambda: quietly(self._callbacks.upkeep))
        for link in self._links():
            if not link.is_mute and now - link.swept_at >= self._pace.sweep_s:
                self._sweep_soon(link)

    def _obey_requests(self) -> None:
        links = {link.cluster_id: link for link in self._links() if link.state is not State.CLOSING}
        if not links:
            return
        requests = self._callbacks.requested(list(links))
        for cluster_id in requests.unwanted & links.keys():
            if links[cluster_id].state is State.UP:  # so its daemon answers: a request is met
                if cluster_id in requests.bootstrap:
                    self._callbacks.clear_request(cluster_id, links[cluster_id].epoch)
                self._connector.drop(links[cluster_id], "The link is not wanted.", 5.0)
        for cluster_id in (requests.bootstrap - requests.unwanted) & links.keys():
            self._callbacks.clear_request(cluster_id, links[cluster_id].epoch)
            self._connector.reconnect(
                links[cluster_id], "Someone asked to see to the daemon.", True
            )

    def _balance(self, now: float) -> None:
        share = self._callbacks.share()
        held = [link for link in self._links() if link.state is not State.CLOSING]
        up = [link for link in held if link.state is State.UP]  # others end by themselves
        is_time = now - self._released_at >= self._pace.release_s
        if up and is_time and lease.is_above_share(len(held), share):
            self._released_at = now
            self._connector.drop(up[-1], "Another worker has room for this link.", 5.0)
        wanted = lease.to_take(len(held), share)
        for cluster_id in self._callbacks.candidates(wanted) if wanted else ():
            with self._lock:
                is_held = cluster_id in self._held
            if not is_held:
                self._take(cluster_id)

    # What the connector tells -------------------------------------------------------------------

    def _came_up(self, link: HeldLink) -> None:
        self._callbacks.changed()
        self._sweep_soon(link)

    def _gone(self, link: HeldLink) -> None:
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
        quietly(lambda: self._callbacks.polled(link.cluster_id, link.epoch, polled))

    def _sweep_soon(self, link: HeldLink) -> None:
        link.swept_at = clock.now()
        if self._cancellers.is_idle(link.cluster_id):
            self._cancellers.post(link.cluster_id, lambda: self._cancel(link))
        if self._sweepers.is_idle(link.cluster_id):
            self._sweepers.post(link.cluster_id, lambda: self._sweep(link))

    def _cancel(self, link: HeldLink) -> None:
        if not self.is_draining and not link.is_mute:
            quietly(lambda: self._callbacks.cancel(link))

    def _sweep(self, link: HeldLink) -> None:
        if self.is_draining or link.is_mute:
            return
        try:
            if self._callbacks.sweep(link):
                self._sweepers.post(link.cluster_id, lambda: self._sweep(link))
        except Exception:
            logger.exception("sweep.failed", extra={"cluster_id": link.cluster_id})
