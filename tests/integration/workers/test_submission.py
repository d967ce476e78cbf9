"""What an answer to a submission, or none, makes of a job; over a real link to a small peer."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from pytest_django import Settings

from cluster_client.protocol import messages
from controller import queries
from controller.lifecycle import Event, JobStatus
from controller.models import ClusterLink, HpcCluster, HpcJob
from controller.services import jobs
from tests.integration.workers import peer as peers
from workers.links import clock, connection, lease, watchdog
from workers.links.link import HeldLink, State
from workers.operations import cancellation, comparison, deletion, submission, sweep

pytestmark = pytest.mark.django_db(transaction=True)

EPOCH = 5


@contextmanager
def linked(
    directory: Path, cluster: HpcCluster, answer: Callable[[Any], Any]
) -> Iterator[HeldLink]:
    """A link that is up, to a peer that answers so."""
    with peers.serving(directory, answer) as (_, connect):
        dog = watchdog.Watchdog(15)
        link = HeldLink(
            cluster.pk,
            lease.Lease(EPOCH, clock.now(), mute_s=60),
            post=lambda run: run(),
            commit=lambda _link, events: events[-1].seq,
            on_polled=lambda _link, _polled: None,
            on_lost=lambda _link, _reason: None,
        )
        wire = connection.Connection(
            connect(), link, dog, name="test", ping_interval_s=5, connect_limit_s=5
        )
        link.attach(wire)
        hello = messages.Hello((1,), "test", cluster.pk, epoch=EPOCH)
        wire.ask(hello, 5).wait()
        link.lease.greeted(EPOCH)
        link.become(State.UP)
        try:
            yield link
        finally:
            link.close("The test is over.")
            dog.stop()


@pytest.fixture
def cluster() -> HpcCluster:
    made = HpcCluster.objects.create(name="c", host_name="localhost", client_path="/x")
    ClusterLink.objects.update_or_create(
        cluster=made, defaults={"epoch": EPOCH, "holder": "me", "wanted": True}
    )
    return made


def pending(cluster: HpcCluster) -> HpcJob:
    job = HpcJob.objects.create(cluster=cluster)
    jobs.submit(job, {"script": "#!/bin/sh\n"})
    return job


def rejected(reason: str, *, transient: bool) -> Callable[[Any], Any]:
    return lambda m: messages.Rejected(m.tag, reason, "The scheduler's words.", transient)


def test_an_accepted_job_is_submitted(short_directory: Path, cluster: HpcCluster) -> None:
    job = pending(cluster)
    asked: list[messages.Submit] = []

    def answer(message: messages.Submit) -> messages.Submitted:
        asked.append(message)
        return messages.Submitted(message.tag, "4711")

    with linked(short_directory, cluster, answer) as link:
        assert submission.drain(link, 5) == 1
    job.refresh_from_db()
    assert (job.status, job.scheduler_job_id) == (JobStatus.SUBMITTED, "4711")
    assert (asked[0].tag, asked[0].attempt) == (job.tag, 1)


def test_a_passing_refusal_leaves_the_job_pending_with_the_words(
    short_directory: Path, cluster: HpcCluster
) -> None:
    job = pending(cluster)
    with linked(short_directory, cluster, rejected("limits", transient=True)) as link:
        submission.drain(link, 5)
        submission.drain(link, 5)
    job.refresh_from_db()
    assert job.status is JobStatus.PENDING
    assert (job.blocked_reason, job.blocked_detail) == ("limits", "The scheduler's words.")
    assert job.not_before is not None
    assert job.attempt == 1, "not due before its pause is over"


@pytest.mark.parametrize("reason", ["invalid_request", "tag_reused"])
def test_a_final_refusal_ends_the_job_with_the_words(
    short_directory: Path, cluster: HpcCluster, reason: str
) -> None:
    job = pending(cluster)
    with linked(short_directory, cluster, rejected(reason, transient=False)) as link:
        submission.drain(link, 5)
    job.refresh_from_db()
    assert (job.status, job.job_details) == (JobStatus.ERROR, "The scheduler's words.")


def test_a_job_cancelled_meanwhile_is_cancelled(short_directory: Path, cluster: HpcCluster) -> None:
    job = pending(cluster)

    def answer(message: messages.Submit) -> messages.Rejected:
        jobs.cancel(HpcJob.objects.get(pk=job.pk))
        connections.close_all()  # of the peer's thread
        return messages.Rejected(message.tag, "cancelled", "Cancelled before it began.", False)

    with linked(short_directory, cluster, answer) as link:
        submission.drain(link, 5)
    job.refresh_from_db()
    assert job.status is JobStatus.CANCELLED


def test_an_unclear_answer_leaves_the_job_submitting_and_says_why(
    short_directory: Path, cluster: HpcCluster
) -> None:
    job = pending(cluster)
    error = messages.Error("not_stored", "No space left.", transient=True)
    with linked(short_directory, cluster, lambda _m: error) as link:
        submission.drain(link, 5)
    job.refresh_from_db()
    assert job.status is JobStatus.SUBMITTING
    assert (job.blocked_reason, job.blocked_detail) == ("not_stored", "No space left.")


def test_a_lost_link_leaves_the_job_submitting_and_a_later_epoch_asks_again(
    short_directory: Path, cluster: HpcCluster
) -> None:
    job = pending(cluster)
    links: list[HeldLink] = []

    def die(message: messages.Submit) -> None:
        links[0].abort("The cable is cut.")

    with linked(short_directory, cluster, die) as link:
        links.append(link)
        submission.drain(link, 5)
    job.refresh_from_db()
    assert (job.status, job.attempt) == (JobStatus.SUBMITTING, 1)
    HpcJob.objects.filter(pk=job.pk).update(claimed_epoch=EPOCH - 1)
    (short_directory / "peer").unlink(missing_ok=True)
    with linked(short_directory, cluster, lambda m: messages.Submitted(m.tag, "1")) as link:
        submission.ask_again(link, 5)
    job.refresh_from_db()
    assert (job.status, job.attempt) == (JobStatus.SUBMITTED, 2)


def test_a_job_too_large_to_send_ends_and_holds_up_no_other(
    short_directory: Path, cluster: HpcCluster
) -> None:
    large, other = pending(cluster), pending(cluster)
    HpcJob.objects.filter(pk=large.pk).update(environment={"A": "x" * 1_100_000})
    with linked(short_directory, cluster, lambda m: messages.Submitted(m.tag, "1")) as link:
        submission.drain(link, 5)
    large.refresh_from_db()
    other.refresh_from_db()
    assert (large.status, other.status) == (JobStatus.ERROR, JobStatus.SUBMITTED)
    assert "can't be sent" in large.job_details


def test_a_mute_link_sends_and_claims_nothing(short_directory: Path, cluster: HpcCluster) -> None:
    job = pending(cluster)
    asked: list[Any] = []
    with linked(short_directory, cluster, asked.append) as link:
        link.lease.confirm(clock.now(), clock.now(), EPOCH + 1)
        assert submission.drain(link, 5) == 0
    job.refresh_from_db()
    assert (job.status, asked) == (JobStatus.PENDING, [])


def test_a_sweep_stops_after_its_slice_and_says_that_there_is_more(
    short_directory: Path, cluster: HpcCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "SLICE_S", 0.3)
    made = [pending(cluster) for _ in range(20)]

    def answer(message: messages.Submit) -> messages.Submitted:
        time.sleep(0.1)  # the scheduler's own time
        return messages.Submitted(message.tag, "1")

    def waiting() -> int:
        return len(queries.due_pending(cluster.pk, len(made)))

    with linked(short_directory, cluster, answer) as link:
        begun_at = clock.now()
        assert sweep.sweep(link)
        assert clock.now() - begun_at < 1.5
        assert 0 < waiting() < len(made)
        while sweep.sweep(link):
            pass
    assert waiting() == 0


def test_a_sweep_deletes_in_slices_and_says_that_there_is_more(
    short_directory: Path,
    cluster: HpcCluster,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
) -> None:
    monkeypatch.setattr(sweep, "SLICE_S", 0.0)
    settings.HPC_CANCELLING_STALE_S = 0.05
    job = deleting(cluster)
    time.sleep(0.1)  # so that it is due
    slices = iter([False, False, True])
    with linked(short_directory, cluster, lambda m: messages.Deleted(m.tag, next(slices))) as link:
        assert sweep.sweep(link)
        assert list(slices) == [False, True], "one slice was asked for"
        slices = iter([False, True])
        while sweep.sweep(link):
            pass
    job.refresh_from_db()
    assert job.status is JobStatus.DELETED


def test_lost_jobs_are_compared_again_once_they_are_due(
    short_directory: Path, cluster: HpcCluster
) -> None:
    found, lost, running = (pending(cluster) for _ in range(3))
    for job in (found, lost, running):
        jobs.apply(job.pk, Event.START, source="test")
    for job in (found, lost):
        jobs.block(job.pk, "unknown_to_cluster", "gone")
        jobs.look_again(job)
    asked: list[messages.Compare] = []

    def answer(message: messages.Compare) -> messages.Compared:
        asked.append(message)
        states = (messages.JobState(found.tag, "submitted", "7"),)
        return messages.Compared(states, (lost.tag,), (running.tag,))

    with linked(short_directory, cluster, answer) as link:
        sweep.sweep(link)
        sweep.sweep(link)
    assert asked == [messages.Compare((found.tag, lost.tag))]
    found.refresh_from_db()
    lost.refresh_from_db()
    assert (found.blocked_reason, lost.blocked_reason) == ("", "unknown_to_cluster")


def test_lost_jobs_stay_due_while_nobody_answers(
    short_directory: Path, cluster: HpcCluster
) -> None:
    job = pending(cluster)
    jobs.apply(job.pk, Event.START, source="test")
    jobs.block(job.pk, "no_evidence", "gone")
    jobs.look_again(job)
    error = messages.Error("not_stored", "No space left.", transient=True)
    with linked(short_directory, cluster, lambda _m: error) as link:
        comparison.ask_again(link)
    assert queries.lost_sight_of(cluster.pk, 10) == [job.tag]


def test_a_cancel_names_tag_and_id_and_is_asked_once_for_a_while(
    short_directory: Path, cluster: HpcCluster
) -> None:
    job = pending(cluster)
    jobs.apply(job.pk, Event.ACCEPT, source="test", updates={"scheduler_job_id": "9"})
    jobs.cancel(HpcJob.objects.get(pk=job.pk))
    asked: list[messages.Cancel] = []

    def answer(message: messages.Cancel) -> messages.Done:
        asked.append(message)
        return messages.Done()

    with linked(short_directory, cluster, answer) as link:
        cancellation.cancel_over(link, job.pk)
    assert asked == [messages.Cancel(job.tag, "9")]
    job.refresh_from_db()
    assert job.status is JobStatus.CANCELLING
    assert job.not_before is not None


def test_a_large_directory_is_deleted_slice_by_slice(
    short_directory: Path, cluster: HpcCluster
) -> None:
    job = deleting(cluster)
    slices = iter([False, False, True])
    with linked(short_directory, cluster, lambda m: messages.Deleted(m.tag, next(slices))) as link:
        deletion.delete_over(link, job.pk)
    job.refresh_from_db()
    assert job.status is JobStatus.DELETED


def test_what_can_not_be_removed_is_listed(short_directory: Path, cluster: HpcCluster) -> None:
    job = deleting(cluster)
    answer = messages.Deleted(job.tag, False, ("out/x: Permission denied",))
    with linked(short_directory, cluster, lambda m: dataclasses.replace(answer, tag=m.tag)) as link:
        deletion.delete_over(link, job.pk)
    job.refresh_from_db()
    assert job.status is JobStatus.DELETING
    assert job.blocked_reason == "not_deletable"
    assert "out/x" in job.blocked_detail


def deleting(cluster: HpcCluster) -> HpcJob:
    job = pending(cluster)
    jobs.claim(job.pk, EPOCH)
    jobs.apply(job.pk, Event.COMPLETE, source="test")
    jobs.delete(HpcJob.objects.get(pk=job.pk))
    return job
