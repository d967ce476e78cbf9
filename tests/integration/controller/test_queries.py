"""What the sweep is given to do, and what people are shown."""

import json
from datetime import timedelta

import pytest
from django.db.models.functions import Now

from controller import descriptions, lifecycle, queries
from controller.lifecycle import JobStatus
from controller.models import ClusterLink, HpcCluster, HpcJob
from controller.services import jobs, links

from .conftest import MakeJob


def age(job: HpcJob, **columns: float) -> None:
    """Set columns to so many seconds ago."""
    past = {name: Now() - timedelta(seconds=seconds) for name, seconds in columns.items()}
    HpcJob._base_manager.filter(pk=job.pk).update(**past)


def test_due_jobs_come_oldest_first_and_bounded(cluster: HpcCluster, make_job: MakeJob) -> None:
    ids = [make_job(JobStatus.PENDING, cluster=cluster).pk for _ in range(4)]
    jobs.defer(ids[1], 60)
    age(HpcJob.objects.get(pk=ids[2]), not_before=1)
    make_job(JobStatus.PENDING)
    make_job(JobStatus.SUBMITTING, cluster=cluster)
    assert queries.due_pending(cluster.pk, 100) == [ids[0], ids[2], ids[3]]
    assert queries.due_pending(cluster.pk, 2) == [ids[0], ids[2]]


def test_stale_submissions_are_old_or_of_another_epoch(
    cluster: HpcCluster, make_job: MakeJob, lease: links.Lease
) -> None:
    fresh, old, foreign = (
        make_job(JobStatus.SUBMITTING, cluster=cluster, claimed_epoch=epoch)
        for epoch in (lease.epoch, lease.epoch, lease.epoch - 1)
    )
    age(fresh, job_submitting_time=1)
    age(old, job_submitting_time=31)
    age(foreign, job_submitting_time=1)
    assert queries.stale_submitting(cluster.pk, 10) == [old.pk, foreign.pk]
    jobs.defer(old.pk, 60)
    assert queries.stale_submitting(cluster.pk, 10) == [foreign.pk]


@pytest.mark.parametrize(
    ("status", "find"),
    [
        (JobStatus.CANCELLING, queries.stale_cancelling),
        (JobStatus.DELETING, queries.stale_deleting),
    ],
)
def test_stale_cancels_and_deletes_are_old(
    status: JobStatus, find: object, cluster: HpcCluster, make_job: MakeJob
) -> None:
    fresh, old = (make_job(status, cluster=cluster) for _ in range(2))
    age(fresh, changed_at=1)
    age(old, changed_at=31)
    assert callable(find)
    assert find(cluster.pk, 10) == [old.pk]


@pytest.mark.parametrize("status", list(JobStatus))
def test_a_sweep_looks_closer_where_something_may_be_due(
    status: JobStatus, cluster: HpcCluster, make_job: MakeJob
) -> None:
    assert not queries.may_be_due(cluster.pk)
    job = make_job(status, cluster=cluster)
    is_swept = status in (JobStatus.PENDING, JobStatus.SUBMITTING, JobStatus.DELETING)
    assert queries.may_be_due(cluster.pk) is is_swept
    HpcJob._base_manager.filter(pk=job.pk).update(blocked_reason=queries.NO_EVIDENCE)
    assert queries.may_be_due(cluster.pk) is (is_swept or status in lifecycle.IN_SCHEDULER)
    assert not queries.may_be_due(cluster.pk + 1)


def test_both_sides_compare_what_the_daemon_may_know(
    cluster: HpcCluster, make_job: MakeJob
) -> None:
    made = {status: make_job(status, cluster=cluster) for status in JobStatus}
    compared = {status for status, job in made.items() if job.tag in queries.open_tags(cluster.pk)}
    assert {status.name for status in compared} == {
        "PENDING", "SUBMITTING", "SUBMITTED", "QUEUED", "RUNNING", "CANCELLING",
    }  # fmt: skip


def test_descriptions_are_json_and_tell_all(
    cluster: HpcCluster, make_job: MakeJob, lease: links.Lease
) -> None:
    job = make_job(JobStatus.PENDING, cluster=cluster, nodes=2)
    jobs.block(job.pk, "limits", "full", jobs.in_future(60))
    job.refresh_from_db()
    described = json.loads(json.dumps(descriptions.describe_job(job)))
    assert (described["id"], described["status"], described["cluster"]) == (
        job.pk,
        "PENDING",
        "north",
    )
    assert described["resources"] == {"nodes": 2}
    assert described["blocked"]["reason"] == "limits"
    whole = json.loads(json.dumps(descriptions.describe_cluster(cluster)))
    assert whole["connected"] is True
    assert whole["link"]["daemon_host"] == "login1"
    assert whole["backlog"] == {"PENDING": 1}


def test_a_cluster_without_a_link_row_is_described_too(cluster: HpcCluster) -> None:
    ClusterLink.objects.all().delete()
    found = HpcCluster.objects.get(pk=cluster.pk)
    assert descriptions.describe_cluster(found)["link"] is None
    assert not found.is_connected()


def test_confirmation_is_by_poll_for_what_the_scheduler_holds(
    cluster: HpcCluster, make_job: MakeJob, lease: links.Lease
) -> None:
    running, ended = (
        make_job(status, cluster=cluster) for status in (JobStatus.RUNNING, JobStatus.COMPLETED)
    )
    assert links.note_confirmed(cluster.pk, lease.epoch)
    assert not links.note_confirmed(cluster.pk, lease.epoch - 1)
    confirmed = {
        job.pk: job.last_confirmed  # type: ignore[attr-defined]
        for job in queries.with_confirmation(HpcJob.objects.all())
    }
    assert confirmed[running.pk] is not None
    assert confirmed[ended.pk] is None
    for job in (running, ended):
        told = confirmed[job.pk]
        shown = descriptions.describe_job(job)["last_confirmed"]
        assert shown == (told.isoformat() if told else None)
