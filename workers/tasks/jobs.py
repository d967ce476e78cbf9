"""Nudges about one job."""

from __future__ import annotations

from celery import shared_task

from controller import publish

from ..operations import cancellation, deletion, submission


@shared_task(name=publish.SUBMIT_JOB, ignore_result=True, acks_late=False)
def submit_job(job_id: int) -> None:
    """The job waits to be submitted."""
    submission.submit(job_id)


@shared_task(name=publish.CANCEL_JOB, ignore_result=True, acks_late=False)
def cancel_job(job_id: int) -> None:
    """The job waits to be cancelled."""
    cancellation.cancel(job_id)


@shared_task(name=publish.DELETE_JOB, ignore_result=True, acks_late=False)
def delete_job(job_id: int) -> None:
    """The job's data waits to be deleted."""
    deletion.delete(job_id)
