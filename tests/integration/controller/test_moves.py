"""The one writer of a job's status, against a real database."""

import itertools
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from controller import errors, lifecycle, signals
from controller.lifecycle import TRANSITIONS, Event, JobStatus
from controller.models import ClusterLink, HpcCluster, HpcJob, JobEvent
from controller.models.job import LIFECYCLE_FIELDS
from controller.services import jobs, links, moves

from .conftest import MakeJob


def row(job: HpcJob) -> dict[str, Any]:
    return HpcJob._base_manager.filter(pk=job.pk).values().get()


@pytest.mark.parametrize("status", JobStatus)
def test_every_event_does_what_the_table_says_and_nothing_else(
    status: JobStatus, make_job: MakeJob
) -> None:
    for event in Event:
        job = make_job(status, blocked_reason="x", run=3)
        before = row(job)
        outcome = jobs.apply(job.pk, event, source="user", cause="why", run=4)
        after = TRANSITIONS.get((status, event))
        job.refresh_from_db()
        if after is None:
            assert outcome == jobs.Outcome(False, status, is_legal=False)
            assert row(job) == before
            assert not job.events.exists()
            continue
        assert outcome == jobs.Outcome(after is not status, after)
        assert (job.status, job.run, job.job_details) == (after, 4, "why")
        assert bool(job.blocked_reason) == (after is status)
        entry = job.events.get()
        assert (entry.event, entry.source, entry.cause, entry.run) == (event, "user", "why", 4)
        assert (entry.status_before, entry.status_after) == (status, after)
        column = moves.TIME_COLUMNS.get(after)
        if column and after is not status:
            assert getattr(job, column) is not None


def test_an_illegal_move_is_logged(make_job: MakeJob, caplog: pytest.LogCaptureFixture) -> None:
    job = make_job(JobStatus.COMPLETED)
    with caplog.at_level(logging.WARNING, "controller"):
        jobs.apply(job.pk, Event.START, source="cluster")
    assert [record.message for record in caplog.records] == ["illegal move ignored"]


def test_a_move_needs_a_job(db: None) -> None:
    with pytest.raises(errors.NotFound, match="no job 5"):
        jobs.apply(5, Event.START, source="cluster")


def test_history_cannot_be_changed(make_job: MakeJob) -> None:
    job = make_job()
    jobs.apply(job.pk, Event.SUBMIT, source="user")
    entry = job.events.get()
    entry.cause = "other"
    for change in (entry.save, entry.delete, job.events.all().delete):
        with pytest.raises(TypeError, match="append-only"):
            change()
    with pytest.raises(TypeError, match="append-only"):
        JobEvent.objects.update(cause="other")


def test_a_stale_copy_saved_by_the_portal_undoes_no_move(make_job: MakeJob) -> None:
    stale = make_job(JobStatus.PENDING)
    jobs.apply(stale.pk, Event.CANCEL, source="user")
    stale.name = "renamed"
    stale.save()
    stale.save(update_fields=["job_status"])
    found = HpcJob.objects.get(pk=stale.pk)
    assert (found.status, found.name) == (JobStatus.CANCELLED, "renamed")


def test_protected_fields_exist() -> None:
    assert {field.name for field in HpcJob._meta.get_fields()} >= LIFECYCLE_FIELDS


def test_the_signal_comes_after_the_commit_and_hurts_nobody(
    make_job: MakeJob, django_capture_on_commit_callbacks: Any
) -> None:
    heard: list[Any] = []

    def listen(sender: Any, **facts: Any) -> None:
        heard.append((sender, facts["job"].status, facts["before"], facts["after"], facts["event"]))
        raise RuntimeError("a listener's own defect")

    job = make_job(JobStatus.PENDING)
    signals.job_status_changed.connect(listen)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            jobs.apply(job.pk, Event.CANCEL, source="user")
            assert not heard
    finally:
        signals.job_status_changed.disconnect(listen)
    pending, cancelled = JobStatus.PENDING, JobStatus.CANCELLED
    assert heard == [(HpcJob, cancelled, pending, cancelled, Event.CANCEL)]


def test_a_time_that_was_told_counts_within_the_jobs_life(make_job: MakeJob) -> None:
    job = make_job(JobStatus.SUBMITTED)
    HpcJob._base_manager.filter(pk=job.pk).update(created_at=Now() - timedelta(hours=1))
    half_an_hour_ago = datetime.now(UTC) - timedelta(minutes=30)
    jobs.apply(job.pk, Event.START, source="cluster", happened_at=half_an_hour_ago)
    job.refresh_from_db()
    assert job.job_running_time == half_an_hour_ago
    for told in (datetime(2999, 1, 1, tzinfo=UTC), datetime(1970, 1, 2, tzinfo=UTC)):
        other = make_job(JobStatus.SUBMITTED)
        jobs.apply(other.pk, Event.START, source="cluster", happened_at=told)
        other.refresh_from_db()
        assert other.job_running_time is not None
        assert abs(other.job_running_time - datetime.now(UTC)) < timedelta(seconds=30)
        assert other.events.get().happened_at == told


def test_a_claim_has_one_winner_and_counts(
    make_job: MakeJob, cluster: HpcCluster, lease: links.Lease
) -> None:
    job = make_job(JobStatus.PENDING, cluster=cluster, blocked_reason="limits")
    won = jobs.claim(job.pk, lease.epoch)
    assert won is not None
    assert (won.status, won.attempt, won.claimed_epoch) == (JobStatus.SUBMITTING, 1, lease.epoch)
    assert (won.blocked_reason, won.script) == ("", job.script)
    assert jobs.claim(job.pk, lease.epoch) is None
    assert job.events.get().data == {"attempt": 1, "epoch": lease.epoch}


@pytest.mark.parametrize("status", [s for s in JobStatus if s is not JobStatus.PENDING])
def test_only_pending_jobs_are_claimed(
    status: JobStatus, make_job: MakeJob, cluster: HpcCluster, lease: links.Lease
) -> None:
    job = make_job(status, cluster=cluster)
    assert jobs.claim(job.pk, lease.epoch) is None
    assert not job.events.exists()


def test_a_claim_under_a_lost_lease_fails(
    make_job: MakeJob, cluster: HpcCluster, lease: links.Lease
) -> None:
    job = make_job(JobStatus.PENDING, cluster=cluster)
    assert jobs.claim(job.pk, lease.epoch - 1) is None
    assert jobs.claim(job.pk, lease.epoch + 1) is None
    links.release(cluster.pk, "holder", lease.epoch)
    assert jobs.claim(job.pk, lease.epoch) is None


def test_a_job_of_another_cluster_is_not_claimed(make_job: MakeJob, lease: links.Lease) -> None:
    other = HpcCluster.objects.create(name="south", host_name="localhost", client_path="/s")
    job = make_job(JobStatus.PENDING, cluster=other)
    assert jobs.claim(job.pk, lease.epoch) is None


def test_a_job_that_is_not_due_is_not_claimed(
    make_job: MakeJob, cluster: HpcCluster, lease: links.Lease
) -> None:
    job = make_job(JobStatus.PENDING, cluster=cluster)
    jobs.defer(job.pk, 60)
    assert jobs.claim(job.pk, lease.epoch) is None
    jobs.unblock(job.pk)
    assert jobs.claim(job.pk, lease.epoch) is not None


def test_a_claim_is_repeated_only_when_it_is_stale_or_of_another_epoch(
    make_job: MakeJob, cluster: HpcCluster, lease: links.Lease
) -> None:
    job = make_job(JobStatus.PENDING, cluster=cluster)
    jobs.claim(job.pk, lease.epoch)
    assert jobs.claim_again(job.pk, lease.epoch) is None
    rows = HpcJob._base_manager.filter(pk=job.pk)
    rows.update(job_submitting_time=Now() - timedelta(seconds=31))
    again = jobs.claim_again(job.pk, lease.epoch)
    assert again is not None
    assert again.attempt == 2
    assert jobs.claim_again(job.pk, lease.epoch) is None
    rows.update(claimed_epoch=lease.epoch - 1)
    again = jobs.claim_again(job.pk, lease.epoch)
    assert again is not None
    assert (again.attempt, again.claimed_epoch) == (3, lease.epoch)


def test_blocking_keeps_the_time_of_the_first_of_equal_reasons(make_job: MakeJob) -> None:
    job = make_job(JobStatus.PENDING)
    jobs.block(job.pk, "limits", "one", retry_at=jobs.in_future(60))
    job.refresh_from_db()
    since, retry = job.blocked_since, job.not_before
    assert since is not None
    assert retry is not None
    assert timedelta(seconds=50) < retry - since < timedelta(seconds=70)
    jobs.block(job.pk, "limits", "two")
    job.refresh_from_db()
    assert (job.blocked_since, job.blocked_detail, job.not_before) == (since, "two", None)
    jobs.unblock(job.pk)
    job.refresh_from_db()
    assert (job.blocked_reason, job.blocked_since) == ("", None)


@pytest.mark.parametrize("status", JobStatus)
def test_only_what_waits_for_something_is_blocked(status: JobStatus, make_job: MakeJob) -> None:
    job = make_job(status)
    jobs.block(job.pk, "limits", "full")
    job.refresh_from_db()
    waits = lifecycle.OPEN | {JobStatus.DELETING}
    assert bool(job.blocked_reason) == (status in waits)


def test_facts_come_with_the_move_or_not_at_all(make_job: MakeJob) -> None:
    job = make_job(JobStatus.RUNNING)
    facts = {"exit_code": 3, "signal": None}
    jobs.apply(job.pk, Event.FAIL, source="cluster", updates=facts, data={"a": 1})
    jobs.apply(job.pk, Event.COMPLETE, source="cluster", updates={"exit_code": 0})
    job.refresh_from_db()
    assert (job.status, job.exit_code) == (JobStatus.ERROR, 3)
    assert job.events.get().data == {"a": 1}


def test_late_accounting_never_changes_the_status(make_job: MakeJob) -> None:
    for status in (*lifecycle.FINAL, JobStatus.DELETING, JobStatus.DELETED):
        job = make_job(status, job_details="as it ended")
        jobs.apply(job.pk, Event.ACCOUNT, source="cluster", updates={"elapsed_s": 4.5})
        job.refresh_from_db()
        assert (job.status, job.elapsed_s) == (status, 4.5)
        assert job.job_details == "as it ended"


def test_a_cluster_holds_one_link(cluster: HpcCluster) -> None:
    assert ClusterLink.objects.filter(cluster=cluster).count() == 1


def test_pairs_are_all_covered() -> None:
    assert len(list(itertools.product(JobStatus, Event))) == 16 * 19
