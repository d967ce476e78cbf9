"""Redis or the database away: nothing is lost but time."""

from __future__ import annotations

import time

from controller.lifecycle import JobStatus
from tests.stack import Stack


def test_redis_emptied_loses_no_job(stack: Stack) -> None:
    stack.start_worker()
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    waiting = [stack.submit(cluster, stack.script(seconds=0.2)) for _ in range(5)]
    stack.redis.empty()
    for job in waiting:
        assert stack.wait_status(job).status is JobStatus.COMPLETED
    assert len(stack.runs()) == 5


def test_jobs_go_on_while_redis_is_away(stack: Stack) -> None:
    stack.start_worker()
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    stack.redis.stop()
    stopped_at = time.monotonic()
    job = stack.submit(cluster)
    assert stack.wait_status(job, limit_s=15).status is JobStatus.COMPLETED
    time.sleep(max(0.0, 20 - (time.monotonic() - stopped_at)))  # the outage itself
    stack.redis.start()
    assert stack.wait_status(stack.submit(cluster)).status is JobStatus.COMPLETED
    assert len(stack.runs()) == 2
    assert stack.link(cluster).state == "up"
