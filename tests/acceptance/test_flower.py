"""Flower over a running system: readable, behind a password, and only to look at."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.lifecycle import JobStatus
from ops import processes
from tests import flower as flowers
from tests.flower import Flower
from tests.stack import CHECKOUT, Stack


@pytest.fixture
def flower(stack: Stack) -> Iterator[Flower]:
    with flowers.running(stack) as running:
        yield running


def listeners(port: int) -> list[str]:
    """The local addresses (as in /proc/net/tcp) on which somebody listens on `port`."""
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            address, _, hexadecimal = fields[1].rpartition(":")
            if fields[3] == "0A" and int(hexadecimal, 16) == port:
                found.append(address)
    return found


def test_workers_queues_and_tasks_are_shown_by_readable_names(stack: Stack, flower: Flower) -> None:
    stack.start_worker()
    stack.start_worker(queues="files")
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    job = stack.wait_status(stack.submit(cluster))
    assert job.status is JobStatus.COMPLETED

    def names() -> set[str]:
        return {task["name"] for task in flower.json("/api/tasks").values()}

    stack.wait(lambda: "hpc.jobs.submit" in names(), "the submission to be shown")
    tasks = flower.json("/api/tasks").values()
    shown = next(task for task in tasks if task["name"] == "hpc.jobs.submit")
    assert shown["state"] == "SUCCESS"
    assert str(job.pk) in shown["args"]

    def queues() -> set[str]:
        answer = flower.json("/api/workers?refresh=1")
        return {queue["name"] for worker in answer.values() for queue in worker["active_queues"]}

    wanted = {"hpc", "files", f"cluster.{cluster.pk}"}
    stack.wait(lambda: queues() == wanted, f"the queues {wanted}")
    status, page = flower.ask("/workers")
    assert status == 200
    assert len(set(re.findall(r"w[12]-\d+@localhost", page))) == 2


def test_nothing_is_shown_without_the_password(flower: Flower) -> None:
    for path in ("/", "/workers", "/tasks", "/api/workers", "/api/tasks"):
        assert flower.ask(path, login="")[0] == 401
        assert flower.ask(path, login="watcher:wrong")[0] == 401


def test_nothing_can_be_changed(stack: Stack, flower: Flower) -> None:
    stack.start_worker()
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    holder = stack.link(cluster).holder
    node = next(iter(flower.json("/api/workers?refresh=1")))
    for path in (
        f"/api/worker/shutdown/{node}",
        f"/api/worker/queue/cancel-consumer/{node}?queue=cluster.{cluster.pk}",
        f"/api/worker/pool/shrink/{node}?n=5",
        "/api/task/async-apply/hpc.clusters.bootstrap",
    ):
        assert flower.ask(path, method="POST")[0] == 403, path
    stack.wait_status(stack.submit(cluster), JobStatus.COMPLETED)
    assert stack.link(cluster).holder == holder


def test_it_listens_on_loopback_only(flower: Flower) -> None:
    assert listeners(flower.port) == ["0100007F"]


def test_it_does_not_start_without_a_password(stack: Stack) -> None:
    child = processes.start(
        "flower",
        [sys.executable, "-m", "celery", "-A", "workers", "flower",
         "--conf=ops/flowerconfig.py", f"--port={processes.free_port()}"],
        environment=stack.environment({"FLOWER_BASIC_AUTH": ""}),
        directory=CHECKOUT,
        log=stack.directory / "flower.log",
    )  # fmt: skip
    stack.wait(lambda: child.has_ended, "Flower to give up")
    processes.stop(child, limit_s=1.0)
    assert "FLOWER_BASIC_AUTH" in (stack.directory / "flower.log").read_text()
