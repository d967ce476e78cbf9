"""The page "Hpc Jobs": what can be done to a job derives from its life's table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html

from .. import lifecycle, queries
from ..lifecycle import Event, JobStatus
from ..models import HpcJob
from ..models.job import LIFECYCLE_FIELDS
from ..services import jobs
from ..templatetags import hpc_pages
from . import actions, headlines, job_files, job_page, records


@dataclass(frozen=True)
class Verb:
    """Something a person can do to a job. `done` completes "2 jobs ...".

    `event`: it is offered where the job's life allows that; None: where the job is held back.
    `is_grave`: it can't be undone.
    """

    event: Event | None
    label: str
    done: str
    permission: str
    act: Callable[[HpcJob], object]
    is_grave: bool = False

    def fits(self, job: HpcJob) -> bool:
        """Whether it can be done to the job as it stands."""
        if self.event is None:
            return bool(job.blocked_reason)
        return self.event in lifecycle.legal_events(job.status)


class Pressed(HttpResponseRedirect):
    """The answer to a verb's button on a job's page; the verb is carried out after the commit."""

    def __init__(self, path: str, job: HpcJob, verb: Verb) -> None:
        super().__init__(path)
        self.job, self.verb = job, verb


def _submit(job: HpcJob) -> None:
    jobs.submit(job, job.job_parameters or {"script": job.script}, source="admin")


def _cancel(job: HpcJob) -> None:
    jobs.cancel(job, source="admin")


def _delete(job: HpcJob) -> None:
    jobs.delete(job, source="admin")


VERBS = {
    "submit": Verb(
        Event.SUBMIT, "Submit", "accepted; a worker does the rest.", "submit_hpcjob", _submit
    ),
    "cancel": Verb(
        Event.CANCEL, "Cancel", "to be cancelled: a worker does it.", "cancel_hpcjob", _cancel
    ),
    "delete_data": Verb(
        Event.DELETE,
        "Delete the data on the cluster",
        "to be cleared away: a worker deletes the data.",
        "delete_hpcjob",
        _delete,
        is_grave=True,
    ),
    "look_again": Verb(
        None,
        "Look again",
        "to be looked at again: a worker does it.",
        "change_hpcjob",
        jobs.look_again,
    ),
    "declare_lost": Verb(
        Event.DECLARE_LOST,
        "Declare lost",
        "declared lost.",
        "change_hpcjob",
        jobs.declare_lost,
        is_grave=True,
    ),
}
DRAFT_ONLY = ("script", "cluster", "job_parameters", "environment", *jobs.RESOURCES)
"""What describes the job: it stays as it was submitted."""


@admin.register(HpcJob)
class HpcJobAdmin(records.OwnerAdmin):
    """Draft, submit, follow, cancel and clear away jobs. A portal may derive its own from it."""

    list_display = (
        "id",
        "name",
        "owner",
        "cluster",
        "state",
        "last_change",
        "last_confirmed",
    )
    list_filter = ("job_status", "cluster", "blocked_reason")
    list_select_related = ("cluster", "owner")
    search_fields = ("=id", "name", "tag", "scheduler_job_id")
    autocomplete_fields = ("cluster",)
    raw_id_fields = ("owner",)
    show_full_result_count = False
    verbatim = ("script",)
    actions = ("submit", "cancel", "delete_data", "look_again", "declare_lost")

    class Media:
        css = {"all": ("hpc_job_controller/pages.css",)}
        js = ("hpc_job_controller/now.js",)

    change_form_template = "admin/hpc_job_controller/hpcjob/change_form.html"

    def get_fieldsets(self, request: HttpRequest, obj: HpcJob | None = None) -> Any:
        return job_page.fieldsets(type(obj) if obj is not None else self.model, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: HpcJob | None = None) -> Any:
        if obj is None:
            return ()
        fixed = {"created_at", "job_details", *LIFECYCLE_FIELDS}
        if obj.status is JobStatus.DRAFT:
            return tuple(sorted(fixed - set(DRAFT_ONLY)))
        return tuple(sorted(fixed | set(DRAFT_ONLY)))

    def get_queryset(self, request: HttpRequest) -> QuerySet[HpcJob]:
        return queries.with_confirmation(super().get_queryset(request))

    @admin.display(description="status", ordering="job_status")
    def state(self, job: HpcJob) -> str:
        held = f" {hpc_pages.words(job.blocked_reason)}" if job.blocked_reason else ""
        tone = headlines.of_job(job).tone
        return format_html(
            '<span class="hpc-badge hpc-{}">{}</span>{}', tone, job.status.label, held
        )

    @admin.display(description="last change", ordering="changed_at")
    def last_change(self, job: HpcJob) -> str:
        return hpc_pages.moment(job.changed_at)

    @admin.display(description="last confirmed", ordering="last_confirmed")
    def last_confirmed(self, job: HpcJob) -> str:
        """When the cluster last showed the job, by a poll or an event."""
        return hpc_pages.moment(queries.last_confirmed(job))

    def save_model(self, request: HttpRequest, obj: HpcJob, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        kept = {name: getattr(obj, name) for name in form.changed_data if name in LIFECYCLE_FIELDS}
        if change and kept:
            jobs.redraft(obj, **kept)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        job = self.get_object(request, object_id) if object_id else None
        context = {"panel": self._panel(request, job) if job is not None else None}
        response = super().changeform_view(
            request, object_id, form_url, {**(extra_context or {}), **context}
        )
        if isinstance(response, Pressed):
            # Not sooner: the form was stored in a transaction, and a portal's render() may wait.
            self._act(request, [response.job], response.verb)
        return response

    def get_urls(self) -> Any:
        view = self.admin_site.admin_view(self.now_view)
        name = f"{records.page_name(self)}_now"
        own = [path("<int:job_id>/now/", view, name=name), *job_files.urls(self)]
        return [*own, *super().get_urls()]

    def now_view(self, request: HttpRequest, job_id: int) -> HttpResponse:
        """The panel alone, for the page that keeps itself fresh."""
        job = get_object_or_404(self.get_queryset(request), pk=job_id)
        if not self.has_view_permission(request, job):
            raise PermissionDenied
        context = {"panel": self._panel(request, job)}
        return TemplateResponse(request, "admin/hpc_job_controller/hpcjob/now.html", context)

    def response_change(self, request: HttpRequest, obj: HpcJob) -> HttpResponse:
        for name, verb in self._legal(request, obj).items():
            if f"_hpc_{name}" in request.POST:
                return Pressed(request.path, obj, verb)
        return super().response_change(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: HpcJob | None = None) -> bool:
        """Only rows that stand for nothing on any cluster can go."""
        is_gone = obj is None or obj.status in (JobStatus.DRAFT, JobStatus.DELETED)
        return is_gone and super().has_delete_permission(request, obj)

    def get_actions(self, request: HttpRequest) -> Any:
        found = super().get_actions(request)
        found.pop("delete_selected", None)  # rows of jobs on a cluster must stay
        return found

    def has_submit_permission(self, request: HttpRequest) -> bool:
        return self._may(request, VERBS["submit"])

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return self._may(request, VERBS["cancel"])

    @admin.action(description="Submit the chosen drafts", permissions=("submit",))
    def submit(self, request: HttpRequest, chosen: QuerySet[HpcJob]) -> None:
        self._act(request, chosen, VERBS["submit"])

    @admin.action(description="Cancel the chosen jobs", permissions=("cancel",))
    def cancel(self, request: HttpRequest, chosen: QuerySet[HpcJob]) -> None:
        self._act(request, chosen, VERBS["cancel"])

    @admin.action(description="Delete the data of the chosen jobs", permissions=("delete",))
    def delete_data(self, request: HttpRequest, chosen: QuerySet[HpcJob]) -> None:
        self._act(request, chosen, VERBS["delete_data"])

    @admin.action(description="Look again at the chosen blocked jobs", permissions=("change",))
    def look_again(self, request: HttpRequest, chosen: QuerySet[HpcJob]) -> None:
        self._act(request, chosen, VERBS["look_again"])

    @admin.action(description="Declare the chosen jobs lost", permissions=("change",))
    def declare_lost(self, request: HttpRequest, chosen: QuerySet[HpcJob]) -> None:
        self._act(request, chosen, VERBS["declare_lost"])

    def _act(self, request: HttpRequest, chosen: Any, verb: Verb) -> None:
        actions.run(self, request, chosen, lambda job: verb.act(jobs.load(job.pk)), verb.done)

    def _panel(self, request: HttpRequest, job: HpcJob) -> dict[str, Any]:
        name = f"admin:{records.page_name(self)}_now"
        may_change = self.has_change_permission(request, job)  # else the form takes no POST
        return {
            **job_page.panel(job, request.user),
            "verbs": self._legal(request, job) if may_change else {},
            "files_url": job_files.url(self, job, request.user),
            "form": f"{self.opts.model_name}_form",
            "url": reverse(name, args=[job.pk], current_app=self.admin_site.name),
        }

    def _legal(self, request: HttpRequest, job: HpcJob) -> dict[str, Verb]:
        return {
            name: verb
            for name, verb in VERBS.items()
            if verb.fits(job) and self._may(request, verb)
        }

    def _may(self, request: HttpRequest, verb: Verb) -> bool:
        return bool(request.user.has_perm(f"{HpcJob._meta.app_label}.{verb.permission}"))
