"""PURE: how a link and a job stand, as one headline in plain words."""

from __future__ import annotations

from dataclasses import dataclass

from ..lifecycle import FINAL, JobStatus
from ..models import ClusterLink, HpcJob, LinkState

S = JobStatus

WORKER_COMMAND = "celery -A workers worker -Q hpc"


@dataclass(frozen=True)
class Headline:
    """`tone` is good, busy, warn, bad or idle, and gives the colour."""

    tone: str
    title: str
    sentence: str = ""


MEANINGS: dict[JobStatus, str] = {
    S.DRAFT: "It was not submitted yet: nobody but this page knows of it.",
    S.PENDING: "It is accepted here and waits to be sent to the cluster.",
    S.SUBMITTING: "It is on its way to the cluster's scheduler.",
    S.SUBMITTED: "The scheduler has it.",
    S.QUEUED: "It waits in the scheduler's queue.",
    S.RUNNING: "It runs.",
    S.CANCELLING: "It is being cancelled: the scheduler has the last word.",
    S.CANCELLED: "It was cancelled.",
    S.DELETING: "Its data on the cluster is being deleted.",
    S.DELETED: "Its data on the cluster is gone.",
    S.ERROR: "It failed.",
    S.WALL_TIME_EXCEEDED: "It ran into its time limit: ask for a longer walltime.",
    S.OUT_OF_MEMORY: "It used more memory than it had: ask for more.",
    S.NODE_FAIL: "Its node failed.",
    S.PREEMPTED: "It had to give way to another job.",
    S.COMPLETED: "It ended well.",
}


def of_job(job: HpcJob) -> Headline:
    """How a job stands. What holds it back is told apart."""
    status = job.status
    meaning = MEANINGS[status]
    if status is S.PENDING and job.cluster_id is None:
        meaning = "It waits for a cluster that is up and has what it asks for."
    if job.blocked_reason:
        return Headline("warn", f"{status.label}, held back", meaning)
    if status is S.COMPLETED:
        tone = "good"
    elif status in (S.DRAFT, S.CANCELLED, S.DELETED):
        tone = "idle"
    else:
        tone = "bad" if status in FINAL else "busy"
    return Headline(tone, status.label, meaning)


def of_link(link: ClusterLink | None, *, is_connected: bool, is_worker_alive: bool) -> Headline:
    """How a link stands. `is_connected`: a live worker holds it and the client has greeted."""
    if link is None or not (link.wanted or link.bootstrap_requested_at or link.holder):
        return _unwanted(link)
    if not (link.wanted or link.bootstrap_requested_at):
        return Headline("busy", "Closing", "Its worker closes the link; jobs there go on.")
    if is_connected:
        return Headline("good", "Up", "Jobs go to the cluster and their states come back.")
    if link.state == LinkState.BLOCKED:
        return _blocked(link)
    if not is_worker_alive:
        return Headline(
            "bad",
            "No worker",
            f"No worker is alive to make the link. Start one: {WORKER_COMMAND}",
        )
    if link.state == LinkState.UP:
        sentence = "The worker that held the link is silent; another takes it over."
        return Headline("warn", "Left alone", sentence)
    if link.state == LinkState.CONNECTING:
        return Headline("busy", "Connecting", "A worker is making the link.")
    if link.failures or link.blocked_detail:
        return Headline("warn", "Down", "The link broke or could not be made; it is tried again.")
    return Headline("busy", "Waiting for a worker", "A worker takes the link within seconds.")


def _unwanted(link: ClusterLink | None) -> Headline:
    if link is None or not link.epoch:
        return Headline("idle", "Never connected", "No link to this cluster was made yet.")
    return Headline(
        "idle",
        "Not wanted",
        "The link is closed on request. Jobs on the cluster go on, and wait to be seen again.",
    )


def _blocked(link: ClusterLink) -> Headline:
    if link.not_before is not None:
        return Headline("bad", "Blocked", "It is tried again by itself.")
    sentence = "It is not tried again by itself: mend the cause first, then press Connect."
    return Headline("bad", "Blocked", sentence)
