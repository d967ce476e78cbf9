"""Submit, cancel, delete: what a portal calls."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import ProtectedError
from django.db.models.functions import Now
from pytest_django import Settings

from controller import errors, lifecycle, publish, queries
from controller.lifecycle import FINAL, JobStatus
from controller.models import ClusterLink, HpcCluster, HpcJob
from controller.services import clusters, jobs, links

from .conftest import SCRIPT, WELCOME, MakeJob

Sent = list[tuple[str, int, str]]
PLAIN = {"script": SCRIPT, "resources": {"nodes": 2, "partition": "short"}}


@pytest.fixture
def on_commit(django_capture_on_commit_callbacks: Any) -> Any:
    """Runs what fires on commit, at the end of the block."""
    return lambda: django_capture_on_commit_callbacks(execute=True)


def up(name: str, **welcome: Any) -> HpcCluster:
    """One more cluster that is online."""
    cluster = clusters.register(name=name, host_name="localhost", client_path=f"/{name}")
    lease = links.take(cluster.pk, f"holder of {name}")
    assert lease is not None
    links.record_up(cluster.pk, lease.epoch, {**WELCOME, **welcome})
    return cluster


def test_a_submitted_job_is_pending_with_all_it_needs(
    cluster: HpcCluster, sent: Sent, on_commit: Any
) -> None:
    job = HpcJob(name="mine", cluster=cluster, environment={"A": "1"}, tasks=4)
    with on_commit():
        assert jobs.submit(job, PLAIN) is JobStatus.PENDING
        assert sent == []
    assert sent == [(publish.SUBMIT_JOB, job.pk, f"cluster.{cluster.pk}")]
    found = HpcJob.objects.get(pk=job.pk)
    assert (found.script, found.job_parameters, found.environment) == (SCRIPT, PLAIN, {"A": "1"})
    assert queries.resources_of(found) == {"nodes": 2, "tasks": 4, "partition": "short"}
    assert found.job_pending_time is not None
    assert job.status is JobStatus.PENDING


def test_the_models_own_verbs_do_the_same(cluster: HpcCluster) -> None:
    job = HpcJob.objects.create(cluster=cluster)
    assert job.submit(PLAIN) is JobStatus.PENDING
    assert job.cancel() is JobStatus.CANCELLED
    assert job.delete_job() is JobStatus.DELETED


@pytest.mark.parametrize(
    "parameters",
    [
        {"script": ""},
        {"script": SCRIPT, "resources": {"gpus": 1}},
        {"script": SCRIPT, "cluster": "nowhere"},
        {"script": SCRIPT, "cluster": 10**30},
        {"template": "absent"},
        {"script": SCRIPT, "x": float("nan")},
        None,
    ],
)
def test_a_refused_job_is_left_as_it_was(
    parameters: Any, cluster: HpcCluster, sent: Sent, on_commit: Any
) -> None:
    job = HpcJob.objects.create(name="mine")
    before = HpcJob.objects.values().get(pk=job.pk)
    with on_commit(), pytest.raises(errors.HpcError):
        jobs.submit(job, parameters)
    assert HpcJob.objects.values().get(pk=job.pk) == before
    assert not job.events.exists()
    assert sent == []


def test_a_job_is_submitted_once(cluster: HpcCluster) -> None:
    job = HpcJob(cluster=cluster)
    jobs.submit(job, PLAIN)
    with pytest.raises(errors.IllegalMove, match=f"Job {job.pk} is Pending"):
        jobs.submit(job, PLAIN)
    assert job.events.count() == 1


def test_an_explicit_cluster_comes_first(cluster: HpcCluster) -> None:
    other = up("south")
    by_field, by_name, by_id = HpcJob(cluster=cluster), HpcJob(), HpcJob()
    jobs.submit(by_field, {**PLAIN, "cluster": "south"})
    jobs.submit(by_name, {**PLAIN, "cluster": "north"})
    jobs.submit(by_id, {**PLAIN, "cluster": other.pk})
    assert [job.cluster for job in (by_field, by_name, by_id)] == [cluster, cluster, other]


def test_a_cluster_named_on_a_stored_job_counts(cluster: HpcCluster) -> None:
    up("south")
    job = HpcJob.objects.create()
    job.cluster = cluster
    jobs.submit(job, PLAIN)
    assert HpcJob.objects.get(pk=job.pk).cluster == cluster


def test_an_overridden_choice_comes_before_the_settings_function(
    cluster: HpcCluster, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.HPC_CLUSTER_CHOOSER = f"{__name__}.choose_nothing"
    monkeypatch.setattr(HpcJob, "choose_cluster", lambda self, parameters: cluster)
    job = HpcJob()
    jobs.submit(job, PLAIN)
    assert job.cluster == cluster


def choose_nothing(job: HpcJob, parameters: Any) -> None:
    """A site's own function, which finds none."""


def test_the_settings_function_comes_before_the_default(
    cluster: HpcCluster, lease: links.Lease, settings: Settings
) -> None:
    settings.HPC_CLUSTER_CHOOSER = f"{__name__}.choose_nothing"
    job = HpcJob()
    jobs.submit(job, PLAIN)
    assert job.cluster is None


def test_the_least_loaded_suitable_cluster_online_is_the_default(
    cluster: HpcCluster, lease: links.Lease, make_job: MakeJob
) -> None:
    offline = clusters.register(name="offline", host_name="localhost", client_path="/o")
    small = up("small", capabilities={"resources": ["tasks"]})
    other = up("zone", capabilities={"resources": ["nodes", "partition"], "partitions": ["short"]})
    make_job(JobStatus.RUNNING, cluster=cluster)
    make_job(JobStatus.COMPLETED, cluster=other)
    job = HpcJob()
    jobs.submit(job, PLAIN)
    assert job.cluster == other
    assert job.cluster not in (offline, small)


def test_many_jobs_submitted_at_once_are_spread(make_job: MakeJob) -> None:
    busy, idle = up("busy"), up("idle")
    make_job(JobStatus.RUNNING, cluster=busy)
    pairs = [(HpcJob(), {"script": SCRIPT}) for _ in range(4)]
    pairs.insert(0, (HpcJob(cluster=idle), {"script": SCRIPT}))
    jobs.submit_many(pairs)
    chosen = [job.cluster for job, _ in pairs]
    assert chosen == [idle, busy, idle, busy, idle]


def test_a_cluster_whose_lease_ran_out_is_not_online(
    cluster: HpcCluster, lease: links.Lease
) -> None:
    assert queries.is_connected(cluster)
    ClusterLink.objects.update(expires_at=Now())
    assert not cluster.is_connected()
    job = HpcJob()
    jobs.submit(job, PLAIN)
    assert job.cluster is None


def test_what_the_cluster_lacks_is_refused_by_name(cluster: HpcCluster) -> None:
    capabilities = {"resources": ["nodes", "partition"], "partitions": ["long"]}
    ClusterLink.objects.update(capabilities=capabilities)
    with pytest.raises(errors.Invalid, match=r"north.*partition 'short'.*long"):
        jobs.submit(HpcJob(cluster=cluster), PLAIN)
    either = {"script": SCRIPT, "resources": {"partition": "long,,short"}}
    with pytest.raises(errors.Invalid, match=r"it has no partition 'short' \(only long\)\.$"):
        jobs.submit(HpcJob(cluster=cluster), either)
    capabilities["partitions"].append("short")
    ClusterLink.objects.update(capabilities=capabilities)
    jobs.submit(HpcJob(cluster=cluster), either)
    with pytest.raises(errors.Invalid, match="knows no memory_mib"):
        jobs.submit(HpcJob(cluster=cluster), {"script": SCRIPT, "resources": {"memory_mib": 1}})


def test_a_cluster_that_knows_no_resources_refuses_any_by_name(cluster: HpcCluster) -> None:
    asks = {"script": SCRIPT, "resources": {"walltime_s": 60}}
    jobs.submit(HpcJob(cluster=cluster), asks)
    ClusterLink.objects.update(capabilities={"resources": []})
    with pytest.raises(errors.Invalid, match=r"north.*knows no walltime_s"):
        jobs.submit(HpcJob(cluster=cluster), asks)
    jobs.submit(HpcJob(cluster=cluster), {"script": SCRIPT})


def test_a_job_without_a_cluster_waits_and_goes_on_when_one_comes_up(
    cluster: HpcCluster, sent: Sent, on_commit: Any
) -> None:
    job = HpcJob()
    with on_commit():
        assert jobs.submit(job, PLAIN) is JobStatus.PENDING
    assert (job.cluster, job.blocked_reason, sent) == (None, "no_cluster", [])
    assert "Connect a cluster" in job.blocked_detail
    with on_commit():
        taken = links.take(cluster.pk, "holder")
        assert taken is not None
        links.record_up(cluster.pk, taken.epoch, WELCOME)
    job.refresh_from_db()
    assert (job.cluster, job.blocked_reason, job.not_before) == (cluster, "", None)


def test_a_waiting_job_that_no_cluster_suits_says_so_and_waits_on(
    cluster: HpcCluster, lease: links.Lease
) -> None:
    ClusterLink.objects.update(capabilities={"resources": ["tasks"]})
    job = HpcJob()
    jobs.submit(job, PLAIN)
    HpcJob._base_manager.update(not_before=None)
    assert jobs.place_waiting() == 0
    job.refresh_from_db()
    assert (job.status, job.cluster) == (JobStatus.PENDING, None)
    assert job.not_before is not None
    assert jobs.place_waiting() == 0


def test_many_are_submitted_with_one_nudge_a_cluster(
    cluster: HpcCluster, sent: Sent, on_commit: Any
) -> None:
    pairs = [(HpcJob(cluster=cluster), PLAIN) for _ in range(20)]
    with on_commit():
        assert jobs.submit_many(pairs) == [JobStatus.PENDING] * 20
    assert sent == [(publish.DRAIN_CLUSTER, cluster.pk, f"cluster.{cluster.pk}")]
    assert len(queries.due_pending(cluster.pk, 100)) == 20


@pytest.mark.parametrize("batch", [1, 100])
def test_of_many_all_or_none_are_submitted(
    cluster: HpcCluster,
    sent: Sent,
    on_commit: Any,
    monkeypatch: pytest.MonkeyPatch,
    make_job: MakeJob,
    batch: int,
) -> None:
    monkeypatch.setattr(jobs, "BATCH", batch)
    draft = make_job()
    good = [(draft, PLAIN), *((HpcJob(cluster=cluster), PLAIN) for _ in range(3))]
    with on_commit(), pytest.raises(errors.Invalid):
        jobs.submit_many([*good, (HpcJob(cluster=cluster), {"script": ""})])
    assert HpcJob.objects.get() == draft
    draft.refresh_from_db()
    assert draft.status is JobStatus.DRAFT
    assert sent == []


def test_nothing_is_sent_when_the_caller_rolls_back(
    cluster: HpcCluster, sent: Sent, on_commit: Any
) -> None:
    with on_commit(), pytest.raises(ZeroDivisionError), transaction.atomic():
        jobs.submit(HpcJob(cluster=cluster), PLAIN)
        raise ZeroDivisionError
    assert sent == []


@pytest.mark.parametrize("status", JobStatus)
def test_cancel(
    status: JobStatus, cluster: HpcCluster, make_job: MakeJob, sent: Sent, on_commit: Any
) -> None:
    job = make_job(status, cluster=cluster)
    at_once = {JobStatus.DRAFT, JobStatus.PENDING}
    if status in FINAL | {JobStatus.DELETING, JobStatus.DELETED}:
        with pytest.raises(errors.IllegalMove, match=f"Job {job.pk} .*nothing to cancel"):
            jobs.cancel(job)
        return
    with on_commit():
        after = jobs.cancel(job)
    assert job.cancel_requested_at is not None
    assert after is (JobStatus.CANCELLED if status in at_once else JobStatus.CANCELLING)
    nudges = [] if status in at_once else [(publish.CANCEL_JOB, job.pk, f"cluster.{cluster.pk}")]
    assert sent == nudges


@pytest.mark.parametrize("status", JobStatus)
def test_delete(
    status: JobStatus, cluster: HpcCluster, make_job: MakeJob, sent: Sent, on_commit: Any
) -> None:
    job = make_job(status, cluster=cluster, attempt=1)
    if status not in FINAL | {JobStatus.DELETING}:
        with pytest.raises(errors.IllegalMove, match=f"Job {job.pk} "):
            jobs.delete(job)
        return
    with on_commit():
        assert jobs.delete(job) is JobStatus.DELETING
    assert sent == [(publish.DELETE_JOB, job.pk, f"cluster.{cluster.pk}")]


def test_what_never_reached_a_cluster_is_deleted_at_once(
    cluster: HpcCluster, make_job: MakeJob, sent: Sent, on_commit: Any
) -> None:
    for job in (make_job(JobStatus.CANCELLED), make_job(JobStatus.CANCELLED, cluster=cluster)):
        with on_commit():
            assert jobs.delete(job) is JobStatus.DELETED
    assert sent == []


def test_a_lost_job_is_declared_so_by_a_person(cluster: HpcCluster, make_job: MakeJob) -> None:
    job = make_job(JobStatus.RUNNING, cluster=cluster, blocked_reason="no_evidence")
    assert jobs.declare_lost(job) is JobStatus.ERROR
    assert "no trace" in job.job_details
    with pytest.raises(errors.IllegalMove):
        jobs.declare_lost(make_job(JobStatus.PENDING))


@pytest.mark.parametrize("status", JobStatus)
def test_the_row_of_a_job_at_work_stays(
    cluster: HpcCluster, make_job: MakeJob, status: JobStatus
) -> None:
    draft = make_job(JobStatus.DRAFT)
    job, stale = make_job(status, cluster=cluster), make_job(status, cluster=cluster)
    stale.job_status = JobStatus.COMPLETED
    deletions = (job.delete, stale.delete, HpcJob.objects.order_by("pk").delete)
    if status in lifecycle.OPEN or status is JobStatus.DELETING:
        for delete in deletions:
            message = f"is {status.label}: cancel it"
            with pytest.raises(ProtectedError, match=message), transaction.atomic():
                delete()
        assert set(HpcJob.objects.all()) == {draft, job, stale}
    else:
        for delete in deletions:
            delete()
        assert not HpcJob.objects.exists()


def test_a_job_outlives_its_owner(make_job: MakeJob) -> None:
    owner = User.objects.create(username="ada")
    job = make_job(JobStatus.RUNNING, owner=owner)
    owner.delete()
    job.refresh_from_db()
    assert (job.owner, job.status) == (None, JobStatus.RUNNING)


def test_looking_again_makes_a_job_due(
    cluster: HpcCluster, make_job: MakeJob, sent: Sent, on_commit: Any
) -> None:
    job = make_job(JobStatus.PENDING, cluster=cluster)
    jobs.block(job.pk, "limits", "full", jobs.in_future(600))
    assert queries.due_pending(cluster.pk, 10) == []
    with on_commit():
        jobs.look_again(job)
    assert queries.due_pending(cluster.pk, 10) == [job.pk]
    assert sent == [(publish.DRAIN_CLUSTER, cluster.pk, f"cluster.{cluster.pk}")]


def test_a_form_is_told_what_is_wrong_by_field(db: None) -> None:
    job = HpcJob(script="echo", environment={"a b": "1"}, job_parameters={"a": "\0"})
    with pytest.raises(ValidationError) as caught:
        job.clean()
    assert set(caught.value.message_dict) == {"script", "environment", "job_parameters"}


def test_a_browsers_line_ends_are_mended(db: None) -> None:
    job = HpcJob(script="#!/bin/sh\r\necho\r\n", environment=None)
    job.clean()
    assert (job.script, job.environment) == ("#!/bin/sh\necho\n", {})
