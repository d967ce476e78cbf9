"""Events are applied once and in order; no event, however hostile, breaks the batch."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from controller import errors, queries
from controller.lifecycle import JobStatus
from controller.models import ClusterLink, HpcCluster, HpcJob, OutboxCursor
from controller.services import clusters, jobs, links
from controller.services.links import ClusterEvent, ClusterJobState

from .conftest import WELCOME, MakeJob

BOX = "box"


class Client:
    """Numbers the events of one outbox, as a daemon does."""

    def __init__(self, cluster: HpcCluster, lease: links.Lease) -> None:
        self.cluster, self.lease, self.seq = cluster, lease, 0

    def event(
        self, tag: str, kind: str, run: int = 0, at: float = 1e9, **data: Any
    ) -> ClusterEvent:
        self.seq += 1
        return ClusterEvent(tag, self.seq, run, kind, at, data)

    def send(self, *events: ClusterEvent, outbox_id: str = BOX) -> int:
        return links.receive(self.cluster.pk, self.lease.epoch, outbox_id, events)


@pytest.fixture
def client(cluster: HpcCluster, lease: links.Lease) -> Client:
    return Client(cluster, lease)


def statuses(job: HpcJob) -> list[str]:
    return [event.event for event in job.events.all()]


def test_a_job_is_led_to_its_end(client: Client, make_job: MakeJob) -> None:
    job = make_job(JobStatus.SUBMITTING, cluster=client.cluster)
    tag = job.tag
    assert (
        client.send(
            client.event(tag, "submitted", scheduler_job_id="12"),
            client.event(tag, "queued", reason="Priority"),
            client.event(tag, "running"),
            client.event(tag, "queued", run=1),
            client.event(tag, "running", run=1),
            client.event(tag, "ended", run=1, outcome="failed", exit_code=3, reason="it said so"),
            client.event(tag, "accounting", run=1, elapsed_s=2.5, cpu_s=1, max_memory_mib=9),
        )
        == 7
    )
    job.refresh_from_db()
    assert (job.status, job.run, job.exit_code, job.scheduler_job_id) == (
        JobStatus.ERROR,
        1,
        3,
        "12",
    )
    assert (job.elapsed_s, job.cpu_s, job.max_memory_mib) == (2.5, 1, 9)
    assert job.job_details == "it said so"
    assert job.confirmed_at is not None
    assert statuses(job) == ["accept", "queue", "start", "queue", "start", "fail", "account"]


def test_the_scripts_own_name_is_shown_where_the_portal_gave_none(
    client: Client, make_job: MakeJob
) -> None:
    unnamed = make_job(JobStatus.SUBMITTING, cluster=client.cluster)
    named = make_job(JobStatus.SUBMITTED, cluster=client.cluster)
    HpcJob.objects.filter(pk=unnamed.pk).update(name="")
    HpcJob.objects.filter(pk=named.pk).update(name="the portal's")
    client.send(
        *(
            client.event(job.tag, "submitted", scheduler_job_id="12", name="the script's")
            for job in (unnamed, named)
        )
    )
    unnamed.refresh_from_db()
    named.refresh_from_db()
    assert (unnamed.name, named.name) == ("the script's", "the portal's")
    assert unnamed.status is JobStatus.SUBMITTED


def test_a_job_that_waits_for_somebody_to_act_is_blocked_until_that_is_over(
    client: Client, make_job: MakeJob
) -> None:
    job = make_job(JobStatus.SUBMITTED, cluster=client.cluster)

    def blocked_after(**data: Any) -> tuple[str, str]:
        client.send(client.event(job.tag, "queued", **data))
        job.refresh_from_db()
        assert job.status is JobStatus.QUEUED
        return job.blocked_reason, job.blocked_detail

    held = "JobHeldUser: it is held"
    assert blocked_after(reason=held, needs_action=True) == ("needs_action", held)
    jobs.look_again(job)
    assert job.blocked_reason == "needs_action", "it is held whoever looks"
    assert blocked_after(reason="Priority") == ("", "")
    assert blocked_after(reason=held, needs_action=True) == ("needs_action", held)
    client.send(client.event(job.tag, "running"))
    job.refresh_from_db()
    assert (job.status, job.blocked_reason) == (JobStatus.RUNNING, "")


def test_what_was_received_is_not_applied_again(client: Client, make_job: MakeJob) -> None:
    job = make_job(JobStatus.SUBMITTED, cluster=client.cluster)
    batch = [client.event(job.tag, "queued"), client.event(job.tag, "running")]
    assert client.send(*batch) == 2
    assert client.send(*batch) == 2
    assert client.send(*batch, client.event(job.tag, "ended", outcome="completed")) == 3
    assert statuses(job) == ["queue", "start", "complete"]
    assert links.cursor(client.cluster.pk, BOX) == 3


def test_a_gap_ends_the_link_and_applies_nothing(client: Client, make_job: MakeJob) -> None:
    job = make_job(JobStatus.SUBMITTED, cluster=client.cluster)
    first, _, third = (client.event(job.tag, "running") for _ in range(3))
    with pytest.raises(errors.Invalid, match="gap: 3 after 1"):
        client.send(first, third)
    job.refresh_from_db()
    assert (job.status, links.cursor(client.cluster.pk, BOX)) == (JobStatus.SUBMITTED, 0)


def test_a_holder_that_lost_its_lease_changes_nothing(client: Client, make_job: MakeJob) -> None:
    job = make_job(JobStatus.SUBMITTED, cluster=client.cluster)
    ClusterLink.objects.update(epoch=client.lease.epoch + 1)
    with pytest.raises(errors.LeaseLost):
        client.send(client.event(job.tag, "running"))
    with pytest.raises(errors.LeaseLost):
        links.reconcile(client.cluster.pk, client.lease.epoch, [], [job.tag], [])
    job.refresh_from_db()
    assert (job.status, links.cursor(client.cluster.pk, BOX)) == (JobStatus.SUBMITTED, 0)


def test_each_outbox_has_its_own_cursor(client: Client, make_job: MakeJob) -> None:
    job = make_job(JobStatus.SUBMITTED, cluster=client.cluster)
    client.send(client.event(job.tag, "queued"))
    client.seq = 0
    assert client.send(client.event(job.tag, "running"), outbox_id="wiped and made anew") == 1
    job.refresh_from_db()
    assert job.status is JobStatus.RUNNING


def test_a_hostile_link_harms_no_job_but_its_own_and_no_batch(
    client: Client, make_job: MakeJob
) -> None:
    other = clusters.register(name="south", host_name="localhost", client_path="/s")
    foreign = make_job(JobStatus.RUNNING, cluster=other)
    ended = make_job(JobStatus.COMPLETED, cluster=client.cluster)
    job = make_job(JobStatus.SUBMITTED, cluster=client.cluster)
    tag = job.tag
    batch = [
        client.event(foreign.tag, "ended", outcome="failed"),
        client.event(ended.tag, "ended", outcome="failed"),
        client.event("jaaaaaaaaaaaaaa", "running"),
        client.event("", "running"),
        client.event("\0", "running"),
        client.event("x" * 100_000, "running"),
        client.event(["t"], "running"),  # type: ignore[arg-type]
        client.event(tag, "no such kind"),
        client.event(tag, "k\0" * 1000),
        client.event(tag, None),  # type: ignore[arg-type]
        client.event(tag, "running", run=2**60),
        client.event(tag, "running", run=-1),
        client.event(tag, "running", run="1"),  # type: ignore[arg-type]
        client.event(tag, "submitted", scheduler_job_id="\0"),
        client.event(tag, "submitted", scheduler_job_id={"a": 1}),
        client.event(tag, "ended", outcome="completed", exit_code=10**400),
        client.event(tag, "ended", outcome="vanished"),
        client.event(tag, "accounting", elapsed_s=float("inf")),
        client.event(tag, "blocked", reason="\0", message="x"),
        client.event(tag, "queued", at=float("nan"), reason="\0\ud800" + "x" * 1_000_000),
        client.event(tag, "running", at=1e300, extra={"deep": [[[[]]]]}),
    ]
    assert client.send(*batch) == len(batch)
    for untouched, status in ((foreign, JobStatus.RUNNING), (ended, JobStatus.COMPLETED)):
        untouched.refresh_from_db()
        assert untouched.status is status
        assert not untouched.events.exists()
    job.refresh_from_db()
    assert job.status is JobStatus.RUNNING
    assert statuses(job) == ["queue", "start"]
    assert job.events.all()[0].cause.startswith("\ufffd?xxx")


def test_data_that_is_no_object_is_passed_over(client: Client, make_job: MakeJob) -> None:
    job = make_job(JobStatus.SUBMITTED, cluster=client.cluster)
    event = ClusterEvent(job.tag, 1, 0, "running", 1.0, data=["no"])  # type: ignore[arg-type]
    assert client.send(event) == 1
    assert not job.events.exists()


def test_a_refusal_for_now_gives_the_job_back(client: Client, make_job: MakeJob) -> None:
    job = make_job(JobStatus.SUBMITTING, cluster=client.cluster)
    words = {"reason": "limits", "message": "QOSMaxSubmitJobPerUserLimit", "transient": True}
    client.send(client.event(job.tag, "rejected", **words))
    job.refresh_from_db()
    assert (job.status, job.blocked_reason) == (JobStatus.PENDING, "limits")
    assert job.blocked_detail == "QOSMaxSubmitJobPerUserLimit"
    assert job.not_before is not None
    assert jobs.claim(job.pk, client.lease.epoch) is None


def test_a_refusal_for_good_ends_the_job(client: Client, make_job: MakeJob) -> None:
    job = make_job(JobStatus.SUBMITTING, cluster=client.cluster)
    client.send(client.event(job.tag, "rejected", reason="invalid_request", message="bad QOS"))
    job.refresh_from_db()
    assert (job.status, job.job_details) == (JobStatus.ERROR, "bad QOS")


def test_blocked_stands_beside_the_status_until_the_job_moves(
    client: Client, make_job: MakeJob
) -> None:
    job = make_job(JobStatus.RUNNING, cluster=client.cluster)
    client.send(client.event(job.tag, "blocked", reason="no_evidence", message="gone for a day"))
    job.refresh_from_db()
    assert (job.status, job.blocked_reason) == (JobStatus.RUNNING, "no_evidence")
    client.send(client.event(job.tag, "ended", outcome="node_fail"))
    job.refresh_from_db()
    assert (job.status, job.blocked_reason) == (JobStatus.NODE_FAIL, "")


# Comparison ---------------------------------------------------------------------------------------


def reconcile(client: Client, *states: ClusterJobState, **lists: list[str]) -> list[str]:
    unknown, extra = lists.get("unknown", []), lists.get("extra", [])
    return links.reconcile(client.cluster.pk, client.lease.epoch, states, unknown, extra)


@pytest.mark.parametrize(
    ("state", "after"),
    [
        (ClusterJobState("", "submitted", "5"), JobStatus.SUBMITTED),
        (ClusterJobState("", "queued", "5"), JobStatus.QUEUED),
        (ClusterJobState("", "running", "5"), JobStatus.RUNNING),
        (ClusterJobState("", "ended", "5", outcome="completed", exit_code=0), JobStatus.COMPLETED),
        (ClusterJobState("", "submitting"), JobStatus.SUBMITTING),
        (ClusterJobState("", "rejected"), JobStatus.SUBMITTING),
        (ClusterJobState("", "ended", outcome="nonsense"), JobStatus.SUBMITTING),
    ],
)
def test_the_server_catches_up_with_the_client(
    client: Client, make_job: MakeJob, state: ClusterJobState, after: JobStatus
) -> None:
    job = make_job(JobStatus.SUBMITTING, cluster=client.cluster)
    for _ in range(2):
        reconcile(client, ClusterJobState(**{**vars(state), "tag": job.tag}))
    job.refresh_from_db()
    assert job.status is after
    assert job.events.count() == (after is not JobStatus.SUBMITTING)
    assert job.scheduler_job_id == ("5" if after is not JobStatus.SUBMITTING else "")


def test_a_job_that_ran_though_the_restored_database_holds_it_pending_is_not_run_again(
    client: Client, make_job: MakeJob
) -> None:
    job = make_job(JobStatus.PENDING, cluster=client.cluster)
    reconcile(client, ClusterJobState(job.tag, "running", "5"))
    assert jobs.claim(job.pk, client.lease.epoch) is None


def test_the_server_that_is_further_stays_there(client: Client, make_job: MakeJob) -> None:
    job = make_job(JobStatus.RUNNING, cluster=client.cluster, scheduler_job_id="5")
    reconcile(
        client, ClusterJobState(job.tag, "queued", "5"), ClusterJobState(job.tag, "submitted", "5")
    )
    job.refresh_from_db()
    assert job.status is JobStatus.RUNNING
    assert not job.events.exists()


def test_events_on_their_way_tell_more_than_a_comparison(client: Client, make_job: MakeJob) -> None:
    job = make_job(JobStatus.SUBMITTED, cluster=client.cluster)
    OutboxCursor.objects.filter(outbox_id=BOX).update(seq=4)
    links.record_up(
        client.cluster.pk, client.lease.epoch, {**WELCOME, "first_seq": 5, "last_seq": 6}
    )
    ended = ClusterJobState(job.tag, "ended", "5", outcome="completed")
    reconcile(client, ended)
    job.refresh_from_db()
    assert job.status is JobStatus.SUBMITTED
    client.seq = 4
    client.send(
        client.event(job.tag, "running"), client.event(job.tag, "ended", outcome="completed")
    )
    assert statuses(job) == ["start", "complete"]


@pytest.mark.parametrize(
    ("seq", "first", "last", "cursor"),
    [(2, 9, 12, 8), (20, 5, 12, 12), (0, 9, 12, 8), (0, 9, 8, 8)],
    ids=["our backup is old", "their backup is old", "adopted", "adopted, nothing left"],
)
def test_after_a_backup_the_comparison_tells_the_state_and_no_gap_remains(
    client: Client, make_job: MakeJob, seq: int, first: int, last: int, cursor: int
) -> None:
    job = make_job(JobStatus.SUBMITTED, cluster=client.cluster)
    OutboxCursor.objects.filter(outbox_id=BOX).update(seq=seq)
    bounds = {"first_seq": first, "last_seq": last}
    links.record_up(client.cluster.pk, client.lease.epoch, {**WELCOME, **bounds})
    assert links.cursor(client.cluster.pk, BOX) == cursor
    reconcile(client, ClusterJobState(job.tag, "ended", "5", outcome="completed"))
    job.refresh_from_db()
    assert job.status is JobStatus.COMPLETED
    client.seq = cursor
    client.send(client.event(job.tag, "running"))


def test_what_the_client_does_not_know_is_asked_again_or_told_to_a_person(
    client: Client, make_job: MakeJob
) -> None:
    made = {status: make_job(status, cluster=client.cluster, claimed_epoch=client.lease.epoch)
            for status in JobStatus}  # fmt: skip
    with_id = make_job(JobStatus.CANCELLING, cluster=client.cluster, scheduler_job_id="9")
    tags = [job.tag for job in (*made.values(), with_id)]
    reconcile(client, unknown=[*tags, "jaaaaaaaaaaaaaa", "\0"])
    blocked = set(HpcJob.objects.filter(blocked_reason="unknown_to_cluster"))
    in_scheduler = (JobStatus.SUBMITTED, JobStatus.QUEUED, JobStatus.RUNNING)
    assert blocked == {with_id, *(made[status] for status in in_scheduler)}
    job = HpcJob.objects.get(pk=made[JobStatus.RUNNING].pk)
    assert job.tag in job.blocked_detail
    assert jobs.claim_again(made[JobStatus.SUBMITTING].pk, client.lease.epoch) is not None
    reconcile(client, ClusterJobState(job.tag, "running"))
    job.refresh_from_db()
    assert job.blocked_reason == ""


@pytest.mark.parametrize("reason", ["unknown_to_cluster", "no_evidence"])
def test_a_lost_job_is_asked_about_again_and_goes_on_if_it_is_known(
    client: Client, make_job: MakeJob, reason: str
) -> None:
    known, unknown = (make_job(JobStatus.RUNNING, cluster=client.cluster) for _ in range(2))
    for job in (known, unknown):
        jobs.block(job.pk, reason, "gone")
        jobs.look_again(job)
        assert job.blocked_reason == reason
    tags = queries.lost_sight_of(client.cluster.pk, 10)
    assert tags == [known.tag, unknown.tag]
    links.note_asked_again(client.cluster.pk, client.lease.epoch, tags[:1], tags[1:])
    for job in (known, unknown):
        job.refresh_from_db()
    assert (known.blocked_reason, unknown.blocked_reason) == ("", "unknown_to_cluster")
    assert queries.lost_sight_of(client.cluster.pk, 10) == []


def test_a_job_unknown_to_its_cluster_is_asked_about_now_and_then(
    client: Client, make_job: MakeJob
) -> None:
    job = make_job(JobStatus.RUNNING, cluster=client.cluster)
    reconcile(client, unknown=[job.tag])
    for _ in range(2):
        assert queries.lost_sight_of(client.cluster.pk, 10) == []
        HpcJob._base_manager.update(not_before=Now() - timedelta(seconds=1))
        assert queries.lost_sight_of(client.cluster.pk, 10) == [job.tag]
        links.note_asked_again(client.cluster.pk, client.lease.epoch, [], [job.tag])
    job.refresh_from_db()
    assert job.blocked_since < job.not_before


def test_a_block_told_while_the_client_was_asked_stays(client: Client, make_job: MakeJob) -> None:
    job = make_job(JobStatus.RUNNING, cluster=client.cluster)
    words = {"reason": "no_evidence", "message": "gone for a day"}
    client.send(client.event(job.tag, "blocked", **words))
    jobs.look_again(job)
    client.send(client.event(job.tag, "blocked", **words))
    links.note_asked_again(client.cluster.pk, client.lease.epoch, [job.tag], [])
    job.refresh_from_db()
    assert job.blocked_reason == "no_evidence"


@pytest.mark.parametrize("reason", ["unknown_to_cluster", "no_evidence"])
def test_a_lost_job_that_is_seen_again_goes_on(
    client: Client, make_job: MakeJob, reason: str
) -> None:
    job = make_job(JobStatus.RUNNING, cluster=client.cluster)
    jobs.block(job.pk, reason, "gone")
    client.send(client.event(job.tag, "running"))
    job.refresh_from_db()
    assert (job.status, job.blocked_reason) == (JobStatus.RUNNING, "")


def test_jobs_of_another_cluster_are_out_of_a_comparisons_reach(
    client: Client, make_job: MakeJob
) -> None:
    other = clusters.register(name="south", host_name="localhost", client_path="/s")
    running = make_job(JobStatus.RUNNING, cluster=other)
    ended = make_job(JobStatus.CANCELLED, cluster=other)
    state = ClusterJobState(running.tag, "ended", outcome="failed")
    assert reconcile(client, state, unknown=[running.tag], extra=[ended.tag]) == []
    running.refresh_from_db()
    assert (running.status, running.blocked_reason) == (JobStatus.RUNNING, "")


def test_what_ended_here_but_runs_there_is_to_be_cancelled(
    client: Client, make_job: MakeJob
) -> None:
    ended = make_job(JobStatus.CANCELLED, cluster=client.cluster)
    open_here = make_job(JobStatus.RUNNING, cluster=client.cluster)
    draft = make_job(JobStatus.DRAFT, cluster=client.cluster)
    extra = [ended.tag, open_here.tag, draft.tag, "jaaaaaaaaaaaaaa", "nonsense"]
    assert reconcile(client, extra=extra) == [ended.tag]
