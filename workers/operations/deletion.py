"""Deletes the directories of jobs over a link, slice by slice."""

from __future__ import annotations

import logging

from cluster_client.protocol import messages
from controller import conf
from controller.lifecycle import Event, JobStatus
from controller.models import HpcJob
from controller.services import jobs

from ..links import clock, errors
from ..links.link import HeldLink
from . import registry

logger = logging.getLogger(__name__)

SOURCE = "worker"
LIMIT_S = 60.0
"""A larger directory is gone on with by the sweep."""


def delete(job_id: int) -> None:
    """Delete the job's data if that was asked for and its link is held here."""
    job = jobs.load(job_id)
    link = registry.link_of(job.cluster_id) if job.cluster_id is not None else None
    if link is not None:
        delete_over(link, job_id)


def delete_over(link: HeldLink, job_id: int, limit_s: float = LIMIT_S) -> bool:
    """The same over `link`, for about `limit_s`; says whether there is more to remove now."""
    job = jobs.load(job_id)
    if job.status is not JobStatus.DELETING or job.cluster_id != link.cluster_id:
        return False
    ends_at = clock.now() + limit_s
    try:
        while not _is_over(job, link):
            if clock.now() >= ends_at:
                return True
    except errors.LinkError as problem:
        logger.warning("delete.unanswered", extra={"job_id": job_id, "problem": str(problem)})
        if isinstance(problem, errors.NoAnswer):  # the others first
            jobs.defer(job_id, conf.get().cancelling_stale_s)
    return False


def _is_over(job: HpcJob, link: HeldLink) -> bool:
    """Ask for one slice; True if there is nothing more to ask for now."""
    settings = conf.get()
    answer = link.request(messages.Delete(job.tag), settings.request_deadline_s)
    if isinstance(answer, messages.Error):
        retry_at = jobs.in_future(settings.cancelling_stale_s) if answer.transient else None
        jobs.block(job.pk, answer.code[:64], answer.message, retry_at)
        return True
    if answer.is_complete:
        jobs.apply(job.pk, Event.CONFIRM_DELETE, source=SOURCE)
        return True
    if answer.remaining:
        jobs.block(
            job.pk,
            "not_deletable",
            "These could not be removed: " + "; ".join(answer.remaining[:20]) + ". Mend the cause "
            "on the cluster, then look again.",
        )
        return True
    return False
