"""Questions about files, answered as {"ok": {...}} or {"error": {...}}; and files on their way."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from controller import publish

from ..operations import files, transfers

SHOWN_MOST = 10
"""Characters of an answer that Celery writes into logs and events: "ok" or "error", and no more."""


@shared_task(
    name=publish.FILES_LIST, ignore_result=False, acks_late=False, resultrepr_maxsize=SHOWN_MOST
)
def list_files(job_id: int, path: str = "", after_b64: str = "", limit: int = 1000) -> Any:
    """One directory of a job."""
    return files.answer(lambda: files.list_directory(job_id, path, after_b64, limit))


@shared_task(
    name=publish.FILES_STAT, ignore_result=False, acks_late=False, resultrepr_maxsize=SHOWN_MOST
)
def stat_file(job_id: int, path: str = "") -> Any:
    """One entry of a job's directory."""
    return files.answer(lambda: files.stat(job_id, path))


@shared_task(
    name=publish.FILES_READ, ignore_result=False, acks_late=False, resultrepr_maxsize=SHOWN_MOST
)
def read_file(job_id: int, path: str, offset: int = 0, length: int = -1) -> Any:
    """A slice of a file."""
    return files.answer(lambda: files.read(job_id, path, offset, length))


@shared_task(name=publish.FILES_DOWNLOAD, ignore_result=True, acks_late=False)
def download_file(transfer_id: str, token: str) -> None:
    """Carry a file from a cluster to who waits at the relay."""
    transfers.download(transfer_id, token)


@shared_task(name=publish.FILES_UPLOAD, ignore_result=True, acks_late=False)
def upload_file(transfer_id: str, token: str) -> None:
    """Carry a file from who waits at the relay to a cluster."""
    transfers.upload(transfer_id, token)
