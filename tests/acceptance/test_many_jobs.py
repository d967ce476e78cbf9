"""Many jobs from many clients at once, and how soon their ends are seen."""

from __future__ import annotations

import statistics
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from controller.lifecycle import FINAL, JobStatus
from controller.models import HpcCluster, HpcJob, JobEvent
from tests.stack import Stack

CLIENTS = 8
JOBS_EACH = 10
END_SEEN_GOAL_S = 1.0


def submit_some(stack: Stack, cluster: HpcCluster, start: threading.Barrier, client: int) -> None:
    start.wait(30)
    try:
        for number in range(JOBS_EACH):
            stack.submit(cluster, name=f"client {client}, job {number}")
    finally:
        connection.close()


@pytest.mark.timeout(240)
def test_many_jobs_from_many_clients_each_run_once(stack: Stack) -> None:
    for _ in range(2):
        stack.start_worker()
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    start = threading.Barrier(CLIENTS)
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(submit_some, stack, cluster, start, n) for n in range(CLIENTS)]
    for client in clients:
        client.result()
    total = CLIENTS * JOBS_EACH
    final = [status.value for status in FINAL]
    stack.wait(
        lambda: HpcJob.objects.filter(job_status__in=final).count() == total,
        f"{total} jobs to end",
        180,
    )
    assert set(HpcJob.objects.values_list("job_status", flat=True)) == {JobStatus.COMPLETED.value}
    ledger = stack.runs()
    assert len(ledger) == len(set(ledger)) == total
    ids = set(HpcJob.objects.values_list("scheduler_job_id", flat=True))
    assert len(ids) == total
    assert JobEvent.objects.filter(event="accept", status_after=JobStatus.SUBMITTED).count() > 0
    ends = JobEvent.objects.filter(status_after__in=final)
    assert ends.count() == ends.values("job").distinct().count() == total


def test_the_end_of_a_job_is_seen_soon(stack: Stack) -> None:
    """With the default poll of 10 s, so that hints must do it; three times the goal is allowed."""
    stack.start_worker({"HPC_POLL_INTERVAL_S": "10"})
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    delays = []
    for _ in range(7):
        job = stack.wait_status(stack.submit(cluster, stack.script(seconds=0.5)))
        assert job.status is JobStatus.COMPLETED
        end = job.events.get(status_after=JobStatus.COMPLETED.value)
        # The script wrote half a second before its end, by the same machine's clock.
        written = (stack.client_path / "jobs" / job.tag / "stdout.log").stat().st_mtime
        delays.append(end.at.timestamp() - written - 0.5)
    assert statistics.median(delays) < 3 * END_SEEN_GOAL_S, delays
