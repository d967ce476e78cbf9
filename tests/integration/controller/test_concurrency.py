"""Many at once: one winner, nothing twice, nothing lost."""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection

from controller import errors
from controller.lifecycle import Event, JobStatus
from controller.models import ClusterLink, HpcCluster, HpcJob, JobEvent
from controller.services import clusters, jobs, links

from .conftest import SCRIPT, WELCOME

THREADS = 6
pytestmark = pytest.mark.django_db(transaction=True)


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run the calls at the same moment, a thread and a connection each; errors are results."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        try:
            barrier.wait(10)
            return call()
        except errors.HpcError as error:
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


@pytest.fixture
def north() -> tuple[HpcCluster, links.Lease]:
    cluster = clusters.register(name="north", host_name="localhost", client_path="/opt/hpc")
    clusters.connect(cluster)
    lease = links.take(cluster.pk, "holder")
    assert lease is not None
    links.record_up(cluster.pk, lease.epoch, WELCOME)
    return cluster, lease


def submitted(cluster: HpcCluster, count: int) -> list[HpcJob]:
    pairs = [(HpcJob(cluster=cluster), {"script": SCRIPT}) for _ in range(count)]
    jobs.submit_many(pairs)
    return [job for job, _ in pairs]


def test_of_many_claims_one_wins(north: tuple[HpcCluster, links.Lease]) -> None:
    cluster, lease = north
    for job in submitted(cluster, 5):
        won = at_once(*[lambda job=job: jobs.claim(job.pk, lease.epoch)] * THREADS)
        assert len([claimed for claimed in won if claimed is not None]) == 1
        job.refresh_from_db()
        assert (job.attempt, job.status) == (1, JobStatus.SUBMITTING)
        assert job.events.filter(event=Event.CLAIM).count() == 1


def test_of_many_takers_one_holds_the_link() -> None:
    cluster = clusters.register(name="north", host_name="localhost", client_path="/opt/hpc")
    clusters.connect(cluster)
    calls = [lambda n=n: links.take(cluster.pk, f"holder {n}") for n in range(THREADS)]
    won = [lease for lease in at_once(*calls) if lease is not None]
    assert [lease.epoch for lease in won] == [1]
    assert ClusterLink.objects.get().epoch == 1


def test_the_same_batch_received_twice_at_once_is_applied_once(
    north: tuple[HpcCluster, links.Lease],
) -> None:
    cluster, lease = north
    made = submitted(cluster, 5)
    batch = []
    for job in made:
        for kind in ("queued", "running"):
            batch.append(links.ClusterEvent(job.tag, len(batch) + 1, 0, kind, 1.0))
    receive = [lambda: links.receive(cluster.pk, lease.epoch, "box", batch)] * THREADS
    assert at_once(*receive) == [len(batch)] * THREADS
    for job in made:
        assert [event.event for event in job.events.all()] == ["submit", "queue", "start"]


def test_an_end_and_a_cancel_at_once_leave_one_legal_history(
    north: tuple[HpcCluster, links.Lease],
) -> None:
    cluster, lease = north
    for seq, job in enumerate(submitted(cluster, 8), start=1):
        jobs.claim(job.pk, lease.epoch)
        end = links.ClusterEvent(job.tag, seq, 0, "ended", 1.0, {"outcome": "completed"})
        at_once(
            lambda job=job: jobs.cancel(HpcJob.objects.get(pk=job.pk)),
            lambda end=end: links.receive(cluster.pk, lease.epoch, "box", [end]),
        )
        job.refresh_from_db()
        assert job.status is JobStatus.COMPLETED
        moves = JobEvent.objects.filter(job=job).values_list("status_before", "status_after")
        for (_, after), (before, _) in itertools.pairwise(moves):
            assert after == before


def test_a_claim_and_a_cancel_at_once_leave_one_of_two_ends(
    north: tuple[HpcCluster, links.Lease],
) -> None:
    cluster, lease = north
    for job in submitted(cluster, 8):
        claimed, _ = at_once(
            lambda job=job: jobs.claim(job.pk, lease.epoch),
            lambda job=job: jobs.cancel(HpcJob.objects.get(pk=job.pk)),
        )
        job.refresh_from_db()
        assert job.status is (JobStatus.CANCELLING if claimed else JobStatus.CANCELLED)


def test_a_job_submitted_by_many_at_once_is_accepted_once(
    north: tuple[HpcCluster, links.Lease],
) -> None:
    cluster, _ = north
    job = HpcJob.objects.create(cluster=cluster)
    submit = lambda: jobs.submit(HpcJob.objects.get(pk=job.pk), {"script": SCRIPT})  # noqa: E731
    results = at_once(*[submit] * THREADS)
    assert results.count(JobStatus.PENDING) == 1
    assert len([r for r in results if isinstance(r, errors.IllegalMove)]) == THREADS - 1
    assert job.events.count() == 1


def test_moves_comparisons_and_renewals_at_once_do_not_lock_each_other_up(
    north: tuple[HpcCluster, links.Lease],
) -> None:
    cluster, lease = north
    made = submitted(cluster, 6)
    tags = [job.tag for job in made]
    batch = [
        links.ClusterEvent(tag, seq, 0, "running", 1.0) for seq, tag in enumerate(tags, start=1)
    ]
    states = [links.ClusterJobState(tag, "running", "1") for tag in reversed(tags)]

    def compare() -> None:
        links.reconcile(cluster.pk, lease.epoch, states, [], [])

    def renew() -> None:
        for _ in range(20):
            assert links.renew_all("holder", [cluster.pk]) == {cluster.pk}

    def cancel() -> None:
        for job in reversed(made):
            jobs.cancel(HpcJob.objects.get(pk=job.pk))

    receive = [lambda: links.receive(cluster.pk, lease.epoch, "box", batch)] * 2
    results = at_once(*receive, compare, renew, cancel)
    assert results[:2] == [len(batch)] * 2
    assert [result for result in results[2:] if result is not None] == []
