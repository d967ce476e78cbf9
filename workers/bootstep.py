"""Hangs the keeper on a Celery worker, and consumes `cluster.<id>` while that link is up.

Rules, each learnt from a failure:
- Queues are changed by the consumer's own thread alone (`call_soon`): from another thread it
  kills consumers of amqp.
- Bootsteps are stopped before the pool has drained: `stop` only marks; links are closed by the
  signal `worker_shutdown`, and leases are renewed until then.
- A cluster at its cap of running tasks loses its queue until one ends: else one flooded cluster
  starves the others.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections import Counter
from typing import Any

from celery import bootsteps, signals
from celery.worker import state as worker_state

from controller import conf, errors, publish

from .links.connector import Pace
from .links.keeper import Keeper
from .operations import faults, files, records, registry
from .operations.under_way import under_way
from .operations.untold import untold

logger = logging.getLogger(__name__)

THREAD_POOLS = ("celery.concurrency.thread", "celery.concurrency.solo")
PREFIX = publish.cluster_queue(0).removesuffix("0")


def pace(settings: conf.Conf) -> Pace:
    """The keeper's intervals and limits, from the settings."""
    return Pace(
        renew_s=settings.lease_renew_s,
        mute_s=settings.lease_mute_s,
        tick_s=settings.keeper_interval_s,
        sweep_s=settings.sweep_interval_s,
        release_s=settings.release_interval_s,
        ping_interval_s=settings.ping_interval_s,
        ping_deadline_s=settings.ping_deadline_s,
        request_deadline_s=settings.request_deadline_s,
        connect_limit_s=settings.connect_timeout_s,
        retry_min_s=settings.retry_min_s,
        retry_max_s=settings.retry_max_s,
        writers=settings.writer_threads,
    )


class ClusterQueues:
    """The queues of the clusters whose links are up here, and the tasks that run from them."""

    def __init__(self, cap: int) -> None:
        self.keeper: Keeper | None = None
        self.consumer: Any = None
        self._cap = cap
        self._running: dict[str, str] = {}

    def changed(self) -> None:
        """Have the consumer's thread compare links and queues; safe from any thread."""
        consumer = self.consumer
        if consumer is not None:
            consumer.call_soon(self._sync, consumer)

    def attach(self, consumer: Any) -> None:
        """A consumer has (re)started."""
        self.consumer = consumer
        consumer.on_task_message.add(self._on_received)
        self.changed()

    def on_finished(self, task_id: str | None = None, **_: Any) -> None:
        """A task has ended, in its own thread."""
        if self._running.pop(task_id or "", None) is not None:
            self.changed()

    def _on_received(self, request: Any) -> None:
        queue = request.delivery_info.get("routing_key") or ""
        if queue.startswith(PREFIX):
            self._running[request.id] = queue
            if self._count()[queue] >= self._cap:
                self._sync(self.consumer)

    def _count(self) -> Counter[str]:
        return Counter(self._running.copy().values())

    def _sync(self, consumer: Any) -> None:
        """Idempotent: the queues consumed become those of the links that are up."""
        tasks = consumer.task_consumer
        if tasks is None or self.keeper is None:
            return
        for task_id in [t for t in self._running if t not in worker_state.requests]:
            self._running.pop(task_id, None)  # revoked before it ran: no signal tells
        running = self._count()
        wanted = {
            name
            for name in map(publish.cluster_queue, self.keeper.up_ids())
            if running[name] < self._cap
        }
        present = {queue.name for queue in tasks.queues if queue.name.startswith(PREFIX)}
        for name in sorted(wanted - present):
            consumer.add_task_queue(name)
        for name in sorted(present - wanted):
            consumer.cancel_task_queue(name)


class KeeperStep(bootsteps.StartStopStep):
    """Runs the keeper in workers of the queue `hpc`; files workers hold no links."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        worker.hpc_queues = None
        super().__init__(worker, **kwargs)

    def include_if(self, worker: Any) -> bool:
        return publish.QUEUE in worker.app.amqp.queues.consume_from

    def create(self, worker: Any) -> Any:
        """Build the keeper; it starts with the worker."""
        if worker.pool_cls.__module__ not in THREAD_POOLS:
            raise SystemExit(
                "A worker that holds links needs a pool of threads: start it with -P threads."
            )
        settings = conf.get()
        try:
            faults.configure(settings.fault_point)
        except errors.Misconfigured as problem:
            raise SystemExit(str(problem)) from problem
        queues = ClusterQueues(settings.cluster_task_cap)
        holder = f"{worker.hostname}.{os.getpid()}.{secrets.token_hex(3)}"
        keeper = Keeper(records.Records(holder, queues.changed), pace(settings))
        queues.keeper = keeper
        worker.hpc_queues = queues
        registry.set_keeper(keeper)
        signals.task_postrun.connect(queues.on_finished, weak=False)
        signals.worker_shutdown.connect(_on_shutdown, weak=False)
        return keeper

    def start(self, worker: Any) -> None:
        worker.hpc_queues.keeper.start()

    def stop(self, worker: Any) -> None:
        worker.hpc_queues.keeper.drain()

    def terminate(self, worker: Any) -> None:
        self.stop(worker)


class DataStep(bootsteps.StartStopStep):
    """Has a worker of the queue `files` end its transfers, and log out of the clusters."""

    requires = ("celery.worker.components:Pool",)

    def include_if(self, worker: Any) -> bool:
        return publish.FILES_QUEUE in worker.app.amqp.queues.consume_from

    def create(self, worker: Any) -> None:
        if worker.pool_cls.__module__ not in THREAD_POOLS:
            raise SystemExit(
                "A worker that carries files needs a pool of threads: start it with -P threads."
            )
        under_way.set_up(worker.concurrency)
        signals.worker_shutdown.connect(_log_out, weak=False)

    def stop(self, worker: Any) -> None:
        under_way.close()  # before the pool waits for its tasks, which may take hours

    def terminate(self, worker: Any) -> None:
        self.stop(worker)


class QueuesStep(bootsteps.StartStopStep):
    """Consumes the queues of the links that are up, whenever a consumer (re)starts."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def include_if(self, consumer: Any) -> bool:
        return getattr(consumer.controller, "hpc_queues", None) is not None

    def start(self, consumer: Any) -> None:
        consumer.controller.hpc_queues.attach(consumer)

    def stop(self, consumer: Any) -> None:
        consumer.controller.hpc_queues.consumer = None


def _on_shutdown(**_: Any) -> None:
    keeper = registry.keeper()
    if keeper is not None:
        keeper.close()
        registry.set_keeper(None)
    untold.last_words()


def _log_out(**_: Any) -> None:
    files.close()
    under_way.last_words()
    untold.last_words()
