"""A worker that dies at any step of its work loses no job and doubles none."""

from __future__ import annotations

import pytest

from controller.lifecycle import JobStatus
from tests.stack import Stack

POINTS = [f"worker.submit.{number}" for number in range(1, 6)] + [
    f"worker.events.{number}" for number in (1, 2)
]


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_killed_there_leaves_one_run(stack: Stack, point: str) -> None:
    worker, marker = stack.start_with_fault(point)
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    job = stack.submit(cluster)
    stack.wait(lambda: worker.has_ended, f"the worker to die at {point}")
    assert marker.exists()
    stack.start_worker()
    stack.wait_status(job)
    assert job.status is JobStatus.COMPLETED
    assert len(stack.runs()) == 1


def test_a_killed_daemon_is_started_anew_and_its_jobs_go_on(stack: Stack) -> None:
    stack.start_worker()
    cluster = stack.add_cluster()
    before = stack.wait_up(cluster)
    job = stack.submit(cluster, stack.script(seconds=3))
    stack.wait_status(job, JobStatus.RUNNING)
    stack.kill_daemon(cluster)
    stack.wait(
        lambda: (
            stack.link(cluster).generation > before.generation and stack.link(cluster).state == "up"
        ),
        "a new daemon",
    )
    assert stack.wait_status(job).status is JobStatus.COMPLETED
    assert len(stack.runs()) == 1
