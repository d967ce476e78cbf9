"""What the keeper asks of the database: its callbacks, as thin calls to the services."""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from django.db import close_old_connections

from cluster_client.protocol import messages
from controller import queries
from controller.services import leases, upkeep
from controller.services import links as link_services

from ..links import carriers, connector, errors, keeper
from ..links.link import HeldLink
from . import bootstrap, connecting, events, greetings, link_world, overdue, recording, sweep

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Records:
    """The callbacks of the keeper that calls itself `holder`; `changed` wakes the queues."""

    def __init__(self, holder: str, changed: Callable[[], None]) -> None:
        self._holder = holder
        self.changed = changed
        self._recordings = recording.Recordings(holder)
        self._overdue = overdue.Overdue()

    def tidy(self) -> None:
        close_old_connections()

    # Leases -------------------------------------------------------------------------------------

    def heartbeat(self, is_draining: bool) -> None:
        link_services.heartbeat(self._holder, socket.gethostname(), os.getpid(), is_draining)

    def forget(self) -> None:
        link_services.forget_worker(self._holder)

    def share(self) -> int:
        return link_services.share()

    def candidates(self, limit: int) -> Sequence[int]:
        return link_services.candidates(limit)

    def take(self, cluster_id: int) -> int | None:
        lease = link_services.take(cluster_id, self._holder)
        return lease.epoch if lease is not None else None

    def renew(self, cluster_ids: Iterable[int]) -> set[int]:
        return link_services.renew_all(self._holder, list(cluster_ids))

    def release(self, cluster_id: int, epoch: int) -> None:
        link_services.release(cluster_id, self._holder, epoch)

    def requested(self, cluster_ids: Iterable[int]) -> keeper.Requests:
        asked = link_services.requested(list(cluster_ids))
        return keeper.Requests(asked.bootstrap, asked.unwanted)

    def clear_request(self, cluster_id: int, epoch: int) -> None:
        link_services.clear_bootstrap_request(cluster_id, epoch)

    def raise_epoch(self, cluster_id: int, epoch: int, generation: int) -> int | None:
        lease = link_services.raise_epoch(cluster_id, self._holder, epoch, generation)
        return lease.epoch if lease is not None else None

    # Links --------------------------------------------------------------------------------------

    def connect(
        self, cluster_id: int, epoch: int, is_forced: bool, call: connector.Db[Any]
    ) -> carriers.Channel:
        """Runs on a connector: what needs the database goes through `call`."""

        def run(on_database: Callable[[], T]) -> T:
            done: T = call(cluster_id, on_database)
            return done

        its_recording = self._recordings.take_up(cluster_id, run)
        plan = run(lambda: bootstrap.plan(cluster_id))
        world = link_world.LinkWorld(plan, self._holder, epoch, run, its_recording)
        approach = connecting.Approach(
            plan, world, is_asked=its_recording.is_asked, is_forced=is_forced
        )
        try:
            channel, address = approach.run()
        except bootstrap.NewerGeneration as newer:
            seen = newer.generation
            run(lambda: leases.raise_generation(cluster_id, self._holder, epoch, seen))
            raise errors.CannotConnect("newer_generation", str(newer)) from newer
        try:
            run(lambda: link_services.note_reached(cluster_id, epoch, address))
        except BaseException:
            channel.close()
            raise
        its_recording.greets()
        return channel

    def hello(self, cluster_id: int, epoch: int) -> messages.Hello:
        return greetings.hello(cluster_id, epoch)

    def came_up(self, cluster_id: int, epoch: int, welcome: messages.Welcome) -> None:
        note = self._recordings.note(cluster_id)
        if not link_services.record_up(cluster_id, epoch, dataclasses.asdict(welcome), note):
            raise errors.LinkClosed("The lease went to another worker.")
        self._recordings.end(cluster_id, lambda one: one.came_up(_greeted(welcome)))

    def went_down(self, cluster_id: int, epoch: int, detail: str) -> None:
        link_services.record_down(cluster_id, epoch, detail)
        self._recordings.end(cluster_id, lambda one: one.failed("link_down", detail))

    def blocked(
        self, cluster_id: int, epoch: int, reason: str, detail: str, retry_in_s: float | None
    ) -> None:
        not_before = None if retry_in_s is None else link_services.in_future(retry_in_s)
        link_services.record_blocked(cluster_id, epoch, reason, detail, not_before)
        if self._recordings.end(cluster_id, lambda one: one.failed(reason, detail)):
            link_services.clear_bootstrap_request(cluster_id, epoch)  # its answer is that failure

    # What comes over them -----------------------------------------------------------------------

    def open_tags(self, cluster_id: int) -> Sequence[str]:
        return queries.open_tags(cluster_id)

    def reconcile(self, cluster_id: int, epoch: int, compared: messages.Compared) -> Sequence[str]:
        return events.reconcile(cluster_id, epoch, compared)

    def cursor(self, cluster_id: int, outbox_id: str) -> int:
        return link_services.cursor(cluster_id, outbox_id)

    def receive(
        self, cluster_id: int, epoch: int, outbox_id: str, batch: Sequence[messages.Event]
    ) -> int:
        return events.receive(cluster_id, epoch, outbox_id, batch)

    def polled(self, cluster_id: int, epoch: int, polled: messages.Polled) -> None:
        link_services.note_confirmed(cluster_id, epoch)

    def sweep(self, link: HeldLink) -> bool:
        return sweep.sweep(link)

    def cancel(self, link: HeldLink) -> None:
        sweep.cancel(link)

    def upkeep(self) -> None:
        if upkeep.run(self._holder):
            self._overdue.see_to()


def _greeted(welcome: messages.Welcome) -> str:
    return (
        f"Pid {welcome.pid} on {welcome.host}, generation {welcome.generation}, scheduler "
        f"{welcome.scheduler} {welcome.scheduler_version}".rstrip()
        + "."
    )
