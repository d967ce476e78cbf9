"""The pages of a job's files: one directory at a time, and each file as a download.

A path in an address is base64 of its bytes: not all names on a cluster are UTF-8.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_safe

from .. import errors, responses
from ..lifecycle import JobStatus
from ..models import HpcJob
from ..services import files
from . import records

ENTRIES_SHOWN = 200
LATEST_S = 2.0**32
"""Of the times of files, since the epoch: in the year 2106."""
PERMISSION = f"{HpcJob._meta.app_label}.read_files_hpcjob"
TEMPLATE = "admin/hpc_job_controller/hpcjob/files.html"


@dataclass(frozen=True)
class Row:
    """One entry of a directory; `url` is empty where there is nothing to open."""

    name: str
    kind: str
    size_bytes: int
    changed_at: datetime | None
    target: str
    url: str


@dataclass(frozen=True)
class Place:
    """What an address of these pages names: a path in the directory of a job."""

    model_admin: admin.ModelAdmin[Any]
    job: HpcJob
    path: bytes = b""

    @property
    def names(self) -> list[bytes]:
        return [name for name in self.path.split(b"/") if name not in (b"", b".")]

    def at(self, path: bytes) -> Place:
        return Place(self.model_admin, self.job, path)

    def url(self, page: str, **query: str) -> str:
        """The address of a page about this place: `files` or `download`."""
        name = f"admin:{records.page_name(self.model_admin)}_{page}"
        url = reverse(name, args=[self.job.pk], current_app=self.model_admin.admin_site.name)
        if self.path:
            query = {"path": base64.urlsafe_b64encode(self.path).decode(), **query}
        return f"{url}?{urlencode(query)}" if query else url


View = Callable[[HttpRequest, Place], HttpResponseBase]


def urls(model_admin: admin.ModelAdmin[Any]) -> list[URLPattern]:
    """The addresses of the pages, in the admin of jobs `model_admin`."""
    return [
        _page(model_admin, "files", "<int:job_id>/files/", _directory),
        _page(model_admin, "download", "<int:job_id>/files/download/", _download),
    ]


def may_read(job: HpcJob, user: Any) -> bool:
    """Whether the user may see what is in the job's files, if he may see the job."""
    return user.pk == job.owner_id or bool(user.has_perm(PERMISSION))


def url(model_admin: admin.ModelAdmin[Any], job: HpcJob, user: Any) -> str:
    """The address of the job's files; empty where there can be none, or not for this user."""
    has_some = job.cluster_id is not None and job.attempt and job.status is not JobStatus.DELETED
    return Place(model_admin, job).url("files") if has_some and may_read(job, user) else ""


def _page(model_admin: admin.ModelAdmin[Any], name: str, route: str, view: View) -> URLPattern:
    def page(request: HttpRequest, job_id: int) -> HttpResponseBase:
        job = get_object_or_404(model_admin.get_queryset(request), pk=job_id)
        if not model_admin.has_view_permission(request, job) or not may_read(job, request.user):
            raise PermissionDenied
        place = Place(model_admin, job, _asked(request))
        told = partial(_problem, place)
        return responses.errors_as_responses(view, answer=told)(request, place)

    # The row of a transfer must be there for the worker before the view has ended.
    shown = transaction.non_atomic_requests(require_safe(page))
    wrapped = model_admin.admin_site.admin_view(shown)
    return path(route, wrapped, name=f"{records.page_name(model_admin)}_{name}")


def _directory(request: HttpRequest, place: Place) -> HttpResponseBase:
    after = request.GET.get("after", "")
    try:
        listed = files.list_directory(place.job, place.path, after_b64=after, limit=ENTRIES_SHOWN)
    except errors.Refused:
        if files.stat(place.job, place.path).get("type") != "file":
            raise
        return HttpResponseRedirect(place.url("download"))
    entries = listed["entries"]
    context = {"rows": [_row(place, entry) for entry in entries], "is_later_page": bool(after)}
    if entries and not listed["is_complete"]:
        context["more_url"] = place.url("files", after=entries[-1]["name_b64"])
    return _response(request, place, context)


def _download(request: HttpRequest, place: Place) -> HttpResponseBase:
    return place.job.fetch_remote_file(place.path, owner=request.user)


def _problem(place: Place, request: HttpRequest, problem: errors.HpcError) -> HttpResponseBase:
    """The page that says why there is no list, or no file."""
    context = {
        "problem": str(problem),
        "is_transient": problem.transient,
        "again_url": request.get_full_path(),
    }
    response = _response(request, place, context, status=responses.status_of(problem))
    responses.mark_retry(response, problem)
    return response


def _response(
    request: HttpRequest, place: Place, context: dict[str, Any], status: int = 200
) -> TemplateResponse:
    model_admin = place.model_admin
    common = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "media": model_admin.media,
        "job": place.job,
        "title": f"Files of {place.job}",
        "top_url": place.at(b"").url("files"),
        "way": _way(place),
    }
    return TemplateResponse(request, TEMPLATE, {**common, **context}, status=status)


def _way(place: Place) -> list[tuple[str, str]]:
    """(name, address) of each directory from the job's own, which is left out, to this one."""
    names = place.names
    paths = [b"/".join(names[: depth + 1]) for depth in range(len(names))]
    return [
        (path.rpartition(b"/")[2].decode("utf-8", "replace"), place.at(path).url("files"))
        for path in paths
    ]


def _row(place: Place, entry: dict[str, Any]) -> Row:
    kind = entry["type"]
    page = {"file": "download", "directory": "files", "link": "files"}.get(kind, "")
    try:
        name = _decoded(entry["name_b64"])
    except ValueError:
        name = b""
    inside = place.at(b"/".join([*place.names, name]))
    return Row(
        name=entry["name"],
        kind=kind,
        size_bytes=entry["size_bytes"],
        changed_at=_moment(entry["mtime"]),
        target=entry["target"],
        url=inside.url(page) if page and name else "",
    )


def _moment(seconds: float) -> datetime | None:
    """A time of the cluster's; None for one that no file can have."""
    return datetime.fromtimestamp(seconds, UTC) if 0 <= seconds < LATEST_S else None


def _asked(request: HttpRequest) -> bytes:
    try:
        return _decoded(request.GET.get("path", ""))
    except ValueError:
        raise Http404("This address names no file: go by the links of the pages.") from None


def _decoded(text: str) -> bytes:
    """What base64 of either alphabet stands for; ValueError where it is none."""
    return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
