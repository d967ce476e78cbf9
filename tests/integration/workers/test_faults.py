"""A worker that dies at any step of its work loses no job and doubles none."""

from __future__ import annotations

import signal
from functools import partial

import pytest

from controller.lifecycle import JobStatus
from controller.models import HpcCluster, HpcJob
from tests.stack import Stack

POINTS = [f"worker.submit.{number}" for number in range(1, 6)] + [
    f"worker.events.{number}" for number in (1, 2)
]


def test_jobs_outlive_a_worker_killed_at_each_step(any_stack: Stack) -> None:
    """Each worker dies at the first step at which none has died before; others stand by."""
    stack = any_stack
    environment = stack.armed(*POINTS)
    for _ in range(3):
        stack.start_worker(environment)
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    submitted: list[HpcJob] = []

    def have_died(number: int) -> bool:
        if all(stack.is_over(job) for job in submitted):
            submitted.append(stack.submit(cluster))
        return stack.dead_workers() >= number

    for number in range(1, len(POINTS) + 1):
        stack.wait(partial(have_died, number), f"death {number}")
        if len(stack.workers) <= len(POINTS):
            stack.start_worker(environment)
    assert [point for point in POINTS if not stack.marker_of(point).exists()] == []
    for job in submitted:
        assert stack.wait_status(job).status is JobStatus.COMPLETED
    assert len(stack.runs()) == len(set(stack.runs())) == len(submitted)


@pytest.mark.parametrize("point", ["worker.submit.3", "worker.events.1"])
def test_a_worker_killed_there_leaves_one_run(stack: Stack, point: str) -> None:
    environment = stack.armed(point)
    stack.start_worker(environment)
    stack.start_worker(environment)
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    job = stack.wait_status(stack.submit(cluster))
    assert stack.marker_of(point).exists()
    assert job.status is JobStatus.COMPLETED
    assert len(stack.runs()) == 1


def test_a_killed_daemon_is_started_anew_and_its_jobs_go_on(stack: Stack) -> None:
    stack.start_worker()
    cluster = stack.add_cluster()
    before = stack.wait_up(cluster)
    job = stack.submit(cluster, stack.script_until(stack.directory / "go"))
    stack.wait_status(job, JobStatus.RUNNING)
    stack.kill_daemon(cluster)
    stack.wait(
        lambda: (
            stack.link(cluster).generation > before.generation and stack.link(cluster).state == "up"
        ),
        "a new daemon",
    )
    (stack.directory / "go").touch()
    assert stack.wait_status(job).status is JobStatus.COMPLETED
    assert len(stack.runs()) == 1


def daemon_log(stack: Stack, cluster: HpcCluster) -> str:
    return (stack.client_path / "log" / f"test.{cluster.pk}.log").read_text()


@pytest.mark.parametrize("number", [2, 3])
def test_a_worker_frozen_there_sends_nothing_when_it_thaws(stack: Stack, number: int) -> None:
    frozen, marker = stack.start_with_fault(f"worker.submit.{number}/stop")
    cluster = stack.add_cluster()
    before = stack.wait_up(cluster)
    job = stack.submit(cluster)
    stack.wait(marker.exists, "the worker to freeze")
    stack.start_worker()
    stack.wait_status(job)
    after = stack.link(cluster)
    assert after.epoch > before.epoch
    greetings = daemon_log(stack, cluster).count("link_greeted")
    frozen.send(signal.SIGCONT)
    stack.wait(lambda: "lease.lost" in stack.log_of(1).read_text(), "the lease to be found lost")
    more = stack.wait_status(stack.submit(cluster))
    assert (job.status, more.status) == (JobStatus.COMPLETED, JobStatus.COMPLETED)
    assert len(stack.runs()) == 2
    assert stack.link(cluster).epoch == after.epoch
    log = daemon_log(stack, cluster)
    assert log.count("link_greeted") == greetings, "the thawed worker greeted again"
    assert "link_refused" not in log, "the thawed worker tried again with an old epoch"
