"""Many jobs from many clients over SSH to Slurm, while a daemon and a worker are killed.

Everything is real: PostgreSQL, Redis, two workers, sshd, and Slurm with its accounting.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from controller import lifecycle
from controller.lifecycle import JobStatus
from controller.models import HpcCluster, HpcJob
from controller.services import clusters
from ops import processes, services
from tests import stack as stacks
from tests.integration.ssh.server_side import Portal
from tests.slurm_cluster import SlurmCluster
from tests.stack import Stack

CLIENTS = 16
JOBS = 200
GOAL_S = 80.0
"""From the first submission to the last end; three times as long is allowed.

Most runs take half a minute. In the others a submission died with the daemon before Slurm had it:
it is made again 70 to 155 s later, once it is sure that Slurm will never have it.
"""
SETTINGS = {"HPC_SUBMIT_PARALLEL": "4"}
"""Four submissions in flight at once, where a site is spared with one."""


@pytest.fixture
def stack(
    short_directory: Path,
    own_redis: services.Redis,
    postgres_url: str,
    django_db_blocker: Any,
) -> Iterator[Stack]:
    """A stack on PostgreSQL."""
    with (
        django_db_blocker.unblock(),
        stacks.running(short_directory, own_redis, postgres_url, SETTINGS) as made,
    ):
        yield made


class Submissions:
    """Sixteen clients of one portal: each takes the next number and submits a job of its own."""

    def __init__(self, cluster: HpcCluster, ledger: Path) -> None:
        self.cluster = cluster
        self.script = f'#!/bin/bash\necho "$SLURM_JOB_NAME $SLURM_JOB_ID" >>{ledger}\n'
        self._numbers = iter(range(JOBS))
        self._start = threading.Barrier(CLIENTS)

    def all(self) -> None:
        """Submit everything, all clients at once."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            for client in [pool.submit(self._client) for _ in range(CLIENTS)]:
                client.result()

    def _client(self) -> None:
        self._start.wait(30)
        try:
            # The iterator of a range is safe to share: each number is taken once.
            for number in self._numbers:
                job = HpcJob.objects.create(cluster=self.cluster, name=f"job {number}")
                job.submit({"script": self.script, "resources": {"walltime_s": 600}})
        finally:
            connection.close()


def ended() -> int:
    return HpcJob.objects.filter(job_status__in=[s.value for s in lifecycle.FINAL]).count()


def kill_holder(stack: Stack, cluster: HpcCluster) -> None:
    """kill -9 of the worker that holds the link, once one does: leases may run out meanwhile."""
    found: list[processes.Child] = []

    def is_held() -> bool:
        holder = stack.link(cluster).holder
        found[:] = [child for child in stack.workers if f".{child.pid}." in holder]
        return bool(found)

    stack.wait(is_held, "a worker to hold the link")
    found[0].send(signal.SIGKILL)


def check_history(job: HpcJob) -> None:
    """Every move follows from the one before by the table, and the last one ends the job."""
    status, run = JobStatus.DRAFT, 0
    for entry in job.events.order_by("pk"):
        event = lifecycle.Event(entry.event)
        after = lifecycle.next_status(status, event, known_run=run, run=entry.run)
        assert (entry.status_before, entry.status_after) == (status, after), (job, entry)
        status, run = JobStatus(entry.status_after), entry.run
    assert status is JobStatus.COMPLETED
    assert job.status is status


def told_by_slurm(cluster: SlurmCluster, tags: set[str]) -> list[tuple[str, str, str]]:
    """(name, id, state) of each job of these names that the accounting knows."""
    columns = "--format=JobName,JobIDRaw,State"
    text = cluster.slurm.command(
        "sacct", "-X", "-n", "-P", "--allusers", "--starttime=now-1hour", columns
    )
    rows = [tuple(line.split("|")) for line in text.splitlines()]
    return [(name, number, state) for name, number, state in rows if name in tags]


@pytest.mark.timeout(400)
def test_each_of_many_jobs_runs_once_while_daemon_and_worker_die(
    stack: Stack, slurm_cluster: SlurmCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    account = slurm_cluster.account("scale")
    portal, ledger = Portal(stack, slurm_cluster.site), account.home / "ledger"
    for _ in range(2):
        stack.start_worker()
    cluster = portal.register(slurm_cluster.login_node, account, scheduler="slurm")
    clusters.connect(cluster)
    daemon_pid = stack.wait_up(cluster).daemon_pid
    begun_at = time.monotonic()

    def is_due(number: int) -> bool:
        return ended() >= number

    with ThreadPoolExecutor(1) as pool:
        submitting = pool.submit(Submissions(cluster, ledger).all)
        stack.wait(lambda: is_due(JOBS // 4), "a quarter of the jobs to end", 2 * GOAL_S)
        stack.kill_daemon(cluster)
        stack.wait(lambda: is_due(JOBS // 2), "half of the jobs to end", 2 * GOAL_S)
        kill_holder(stack, cluster)
        submitting.result()
    left_s = begun_at + 3 * GOAL_S - time.monotonic()
    stack.wait(lambda: is_due(JOBS), f"{JOBS} jobs to end", left_s)
    took_s = time.monotonic() - begun_at
    with capsys.disabled():
        print(f"\n{JOBS} jobs ended {took_s:.0f} s after the first began; wanted: {GOAL_S:g} s")  # noqa: T201

    assert stack.link(cluster).daemon_pid != daemon_pid
    assert stack.dead_workers() == 1
    jobs = list(HpcJob.objects.all())
    assert Counter(job.status for job in jobs) == {JobStatus.COMPLETED: JOBS}
    for job in jobs:
        check_history(job)
    expected = sorted((job.tag, job.scheduler_job_id) for job in jobs)
    assert len(dict(expected)) == JOBS
    ran = sorted(tuple(line.split()) for line in ledger.read_text().splitlines())
    assert ran == expected
    accounted = {(name, number, "COMPLETED") for name, number in expected}
    stack.wait(
        lambda: sorted(told_by_slurm(slurm_cluster, set(dict(expected)))) == sorted(accounted),
        "the accounting to know each job once, completed",
    )
