"""Cancels jobs over a link; their end comes as an event."""

from __future__ import annotations

import logging

from cluster_client.protocol import messages
from controller import conf
from controller.lifecycle import JobStatus
from controller.services import jobs

from ..links import errors
from ..links.link import HeldLink
from . import registry

logger = logging.getLogger(__name__)


def cancel(job_id: int) -> None:
    """Send the cancel if the job waits for one and its link is held here."""
    job = jobs.load(job_id)
    link = registry.link_of(job.cluster_id) if job.cluster_id is not None else None
    if link is not None:
        cancel_over(link, job_id)


def cancel_over(link: HeldLink, job_id: int) -> None:
    """The same over `link`; what is not answered is asked again by the sweep."""
    job = jobs.load(job_id)
    if job.status is not JobStatus.CANCELLING or job.cluster_id != link.cluster_id:
        return
    settings = conf.get()
    try:
        answer = link.request(
            messages.Cancel(job.tag, job.scheduler_job_id), settings.request_deadline_s
        )
    except errors.LinkError as problem:
        logger.warning("cancel.unanswered", extra={"job_id": job_id, "problem": str(problem)})
        if isinstance(problem, errors.NoAnswer):  # the others first
            jobs.defer(job_id, settings.cancelling_stale_s)
        return
    if isinstance(answer, messages.Error):
        logger.warning("cancel.refused", extra={"job_id": job_id, "problem": answer.message})
        jobs.block(
            job_id,
            answer.code[:64],
            answer.message,
            jobs.in_future(settings.cancelling_stale_s) if answer.transient else None,
        )
        return
    # The end is on its way; asked again if it does not come.
    jobs.defer(job_id, settings.cancelling_stale_s)
