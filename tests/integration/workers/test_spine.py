"""A job goes all the way: database, worker, link, daemon, process, and back."""

from __future__ import annotations

from controller.lifecycle import JobStatus
from tests.stack import Stack


def test_a_job_goes_all_the_way(stack: Stack) -> None:
    stack.start_worker()
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    job = stack.wait_status(stack.submit(cluster))
    assert job.status is JobStatus.COMPLETED
    assert job.exit_code == 0
    assert job.scheduler_job_id
    assert len(stack.runs()) == 1
