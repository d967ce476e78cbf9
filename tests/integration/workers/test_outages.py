"""Redis or the database away: nothing is lost but time."""

from __future__ import annotations

import signal
import time

import redis

from controller import publish
from controller.lifecycle import JobStatus
from controller.services import clusters
from tests.stack import Stack


def test_redis_emptied_loses_no_job(stack: Stack) -> None:
    worker = stack.start_worker()
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    with redis.Redis.from_url(stack.redis.url) as queues:
        stack.freeze(worker)  # for less than its lease lives
        waiting = [stack.submit(cluster, stack.script(seconds=0.2)) for _ in range(5)]
        assert int(queues.llen(publish.cluster_queue(cluster.pk))) >= 3, "nudges to lose"
        stack.redis.empty()
    worker.send(signal.SIGCONT)
    for job in waiting:
        assert stack.wait_status(job).status is JobStatus.COMPLETED
    assert len(stack.runs()) == 5
    assert nudges_taken(stack) <= 2
    stack.wait_status(stack.submit(cluster))
    stack.wait(lambda: nudges_taken(stack) >= 1, "a nudge to come through the queue again")
    assert len(stack.runs()) == 6


def nudges_taken(stack: Stack) -> int:
    return stack.log_of(1).read_text().count(f"Task {publish.SUBMIT_JOB}")


def test_a_bootstrap_of_an_unwanted_link_survives_a_lost_nudge(stack: Stack) -> None:
    stack.start_worker()
    cluster = stack.add_cluster()
    before = stack.wait_up(cluster)
    clusters.disconnect(cluster)
    stack.wait(lambda: stack.holders() == [], "the link to be let go")
    stack.client("stop", f"test.{cluster.pk}")
    stack.redis.stop()
    for generation in (before.generation + 1, before.generation + 1):  # the second finds it there
        clusters.bootstrap(cluster)
        stack.wait(
            lambda: stack.link(cluster).bootstrap_requested_at is None, "the request to be met"
        )
        stack.wait(lambda: stack.holders() == [], "the link to be let go again")
        assert stack.link(cluster).generation == generation
    epoch = stack.link(cluster).epoch
    assert epoch == before.epoch + 2
    assert '"pid"' in stack.client("status", f"test.{cluster.pk}", "--json")


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
