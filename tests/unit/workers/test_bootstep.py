"""Which cluster queues a worker consumes, and the cap of one cluster's running tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency import prefork
from celery.worker import state as worker_state

from workers import bootstep


@dataclass(frozen=True)
class Queue:
    name: str


@dataclass
class Tasks:
    queues: list[Queue] = field(default_factory=lambda: [Queue("hpc")])


@dataclass
class Consumer:
    """What the queues need of Celery's consumer, run at once instead of soon."""

    task_consumer: Tasks | None = field(default_factory=Tasks)
    on_task_message: set[Any] = field(default_factory=set)

    def call_soon(self, run: Any, *arguments: Any) -> None:
        run(*arguments)

    def add_task_queue(self, name: str) -> None:
        assert self.task_consumer
        self.task_consumer.queues.append(Queue(name))

    def cancel_task_queue(self, name: str) -> None:
        assert self.task_consumer
        self.task_consumer.queues.remove(Queue(name))

    def names(self) -> list[str]:
        assert self.task_consumer
        return sorted(queue.name for queue in self.task_consumer.queues)


@dataclass
class Links:
    up: set[int] = field(default_factory=set)

    def up_ids(self) -> set[int]:
        return self.up


@dataclass
class Request:
    id: str
    queue: str

    @property
    def delivery_info(self) -> dict[str, str]:
        return {"routing_key": self.queue}


@pytest.fixture
def consumer() -> Consumer:
    return Consumer()


@pytest.fixture
def links() -> Links:
    return Links()


@pytest.fixture
def queues(consumer: Consumer, links: Links) -> bootstep.ClusterQueues:
    made = bootstep.ClusterQueues(cap=2)
    made.keeper = links  # type: ignore[assignment]
    made.attach(consumer)
    return made


def receive(consumer: Consumer, task_id: str, queue: str) -> None:
    request = Request(task_id, queue)
    worker_state.requests[task_id] = request
    for callback in consumer.on_task_message:
        callback(request)


def finish(queues: bootstep.ClusterQueues, task_id: str) -> None:
    worker_state.requests.pop(task_id)
    queues.on_finished(task_id)


def test_queues_follow_the_links(
    queues: bootstep.ClusterQueues, consumer: Consumer, links: Links
) -> None:
    links.up = {1, 2}
    queues.changed()
    assert consumer.names() == ["cluster.1", "cluster.2", "hpc"]
    links.up = {2}
    queues.changed()
    queues.changed()
    assert consumer.names() == ["cluster.2", "hpc"]


def test_a_cluster_at_its_cap_loses_its_queue_until_a_task_ends(
    queues: bootstep.ClusterQueues, consumer: Consumer, links: Links
) -> None:
    links.up = {1, 2}
    queues.changed()
    receive(consumer, "a", "cluster.1")
    assert "cluster.1" in consumer.names()
    receive(consumer, "b", "cluster.1")
    assert consumer.names() == ["cluster.2", "hpc"]
    finish(queues, "a")
    assert "cluster.1" in consumer.names()
    finish(queues, "b")


def test_a_task_that_was_revoked_before_it_ran_frees_its_place(
    queues: bootstep.ClusterQueues, consumer: Consumer, links: Links
) -> None:
    links.up = {1}
    queues.changed()
    receive(consumer, "a", "cluster.1")
    receive(consumer, "b", "cluster.1")
    assert "cluster.1" not in consumer.names()
    worker_state.requests.pop("a")
    queues.changed()
    assert "cluster.1" in consumer.names()
    finish(queues, "b")


def test_tasks_of_other_queues_count_for_nothing(
    queues: bootstep.ClusterQueues, consumer: Consumer, links: Links
) -> None:
    links.up = {1}
    queues.changed()
    for number in range(5):
        receive(consumer, f"t{number}", "hpc")
    assert consumer.names() == ["cluster.1", "hpc"]
    for number in range(5):
        finish(queues, f"t{number}")


def test_without_a_connection_nothing_is_done(
    queues: bootstep.ClusterQueues, consumer: Consumer, links: Links
) -> None:
    consumer.task_consumer = None
    links.up = {1}
    queues.changed()


@pytest.mark.parametrize("step", [bootstep.KeeperStep, bootstep.DataStep])
def test_a_pool_of_processes_is_refused(step: Any) -> None:
    worker = SimpleNamespace(pool_cls=prefork.TaskPool, concurrency=2)
    with pytest.raises(SystemExit, match="-P threads"):
        step.create(None, worker)
