"""The page "Hpc Clusters"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.views.decorators.debug import sensitive_post_parameters

from .. import errors, lifecycle, queries
from ..models import ClusterLink, HpcCluster, LinkState
from ..services import clusters
from ..templatetags import hpc_pages
from . import actions, cluster_form, cluster_page, headlines, host_keys, records
from .cluster_verbs import VERBS, Verb

TRUST = (
    "All who use this cluster share one account there: it is the boundary of trust. The local"
    " carrier runs everything as the worker's own user."
)
TEMPLATES = "admin/hpc_job_controller/hpccluster"


def _action(name: str, verb: Verb) -> Any:
    """The verb as an action of the list."""

    @admin.action(description=f"{verb.label} (chosen clusters)", permissions=("change",))
    def act(model_admin: Any, request: HttpRequest, chosen: QuerySet[HpcCluster]) -> None:
        actions.run(
            model_admin,
            request,
            chosen,
            lambda one: _ask(model_admin, request, one, verb),
            verb.done,
        )

    act.__name__ = name
    return act


def _ask(model_admin: Any, request: HttpRequest, cluster: HpcCluster, verb: Verb) -> None:
    """Ask for it, and keep in the cluster's history who did. Raises HpcError."""
    verb.run(cluster, request.user)
    model_admin.log_change(request, cluster, f"Asked for: {verb.label}.")


@admin.register(HpcCluster)
class HpcClusterAdmin(records.OwnerAdmin):
    """Register clusters, link them, see how they are."""

    form = cluster_form.ClusterForm
    change_form_template = f"{TEMPLATES}/change_form.html"
    list_display = ("name", "place", "scheduler", "link_state", "link_detail", "jobs_open")
    list_select_related = ("link",)
    search_fields = ("name", "host_name")
    ordering = ("name",)
    actions = tuple(_action(name, verb) for name, verb in VERBS.items())
    verbatim = ("setup_commands",)
    fieldsets = (
        (None, {"fields": ("name", ("host_name", "port"), "username"), "description": TRUST}),
        (
            "Logging in",
            {"fields": cluster_form.SECRETS, "description": cluster_form.THREE_WAYS},
        ),
        ("On the cluster", {"fields": ("client_path", "scheduler", "setup_commands")}),
        (
            "Advanced",
            {
                "fields": ("carrier", "python", "mode", "umask", "group", "labels"),
                "classes": ("collapse",),
            },
        ),
    )

    class Media:
        css = {"all": ("hpc_job_controller/pages.css",)}
        js = ("hpc_job_controller/now.js",)

    # The list -----------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[HpcCluster]:
        rows: QuerySet[HpcCluster] = super().get_queryset(request)
        is_open = Q(jobs__job_status__in=lifecycle.OPEN)
        online = queries.online_links().filter(pk=OuterRef("pk"))
        return rows.annotate(open_jobs=Count("jobs", filter=is_open), is_online=Exists(online))

    @admin.display(description="host", ordering="host_name")
    def place(self, cluster: HpcCluster) -> str:
        user = f"{cluster.username}@" if cluster.username else ""
        port = f":{cluster.port}" if cluster.port != 22 else ""
        return f"{user}{cluster.host_name}{port}"

    @admin.display(description="link")
    def link_state(self, cluster: HpcCluster) -> str:
        headline = headlines.of_link(
            _link(cluster), is_connected=getattr(cluster, "is_online", False), is_worker_alive=True
        )
        return format_html(
            '<span class="hpc-badge hpc-{}">{}</span>', headline.tone, headline.title
        )

    @admin.display(description="what to know")
    def link_detail(self, cluster: HpcCluster) -> str:
        link = _link(cluster)
        is_told = link is not None and (link.wanted or link.state == LinkState.BLOCKED)
        return hpc_pages.visible(link.blocked_detail) if link is not None and is_told else ""

    @admin.display(description="open jobs", ordering="open_jobs")
    def jobs_open(self, cluster: HpcCluster) -> str:
        page = reverse(f"admin:{self.opts.app_label}_hpcjob_changelist")
        return format_html(
            '<a href="{}?cluster__id__exact={}">{}</a>',
            page,
            cluster.pk,
            getattr(cluster, "open_jobs", 0),
        )

    def get_actions(self, request: HttpRequest) -> Any:
        found = super().get_actions(request)
        found.pop("delete_selected", None)  # one by one, where the page can say why not
        return found

    # The form -----------------------------------------------------------------------------------

    def get_fieldsets(self, request: HttpRequest, obj: HpcCluster | None = None) -> Any:
        """Who may only look is told whether secrets are there, without inputs for them."""
        if obj is None or self.has_change_permission(request, obj):
            return self.fieldsets
        shown: list[Any] = [one for one in self.fieldsets if one[0] != "Logging in"]
        shown.insert(1, ("Logging in", {"fields": ("has_key", "has_password")}))
        return shown

    @admin.display(description="private key stored", boolean=True)
    def has_key(self, cluster: HpcCluster) -> bool:
        return bool(cluster.key)

    @admin.display(description="password stored", boolean=True)
    def has_password(self, cluster: HpcCluster) -> bool:
        return bool(cluster.password)

    @method_decorator(sensitive_post_parameters(*cluster_form.SECRETS))
    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        cluster = self.get_object(request, object_id) if object_id else None
        panel = self._panel(request, cluster) if cluster is not None else None
        return super().changeform_view(
            request, object_id, form_url, {**(extra_context or {}), "panel": panel}
        )

    def save_model(self, request: HttpRequest, obj: HpcCluster, form: Any, change: bool) -> None:
        if change:
            clusters.save(obj, form.changed_columns())
        else:
            super().save_model(request, obj, form, change)
            clusters.ensure_link(obj)
        for sentence in form.mended:
            self.message_user(request, sentence, messages.WARNING)

    def response_post_save_add(self, request: HttpRequest, obj: HpcCluster) -> HttpResponseRedirect:
        """A new cluster is not ready: its own page tells the next step."""
        return HttpResponseRedirect(cluster_page.url(obj, "change"))

    def has_delete_permission(self, request: HttpRequest, obj: HpcCluster | None = None) -> bool:
        link = queries.link_of(obj) if obj is not None else None
        is_linked = link is not None and (link.wanted or bool(link.holder))
        return not is_linked and super().has_delete_permission(request, obj)

    # Its own pages ------------------------------------------------------------------------------

    def get_urls(self) -> Any:
        views: dict[str, tuple[str, Callable[..., HttpResponse]]] = {
            "now": ("<int:cluster_id>/now/", self.now_view),
            "do": ("<int:cluster_id>/do/<slug:name>/", self.do_view),
            "host_keys": ("<int:cluster_id>/host-keys/", self.host_keys_view),
        }
        own = [
            path(route, self.admin_site.admin_view(view), name=f"{records.page_name(self)}_{name}")
            for name, (route, view) in views.items()
        ]
        return [*own, *super().get_urls()]

    def now_view(self, request: HttpRequest, cluster_id: int) -> HttpResponse:
        """The panel alone, for the page that keeps itself fresh."""
        cluster = self._seen(request, cluster_id)
        context = {"panel": self._panel(request, cluster)}
        return TemplateResponse(request, f"{TEMPLATES}/now.html", context)

    def do_view(self, request: HttpRequest, cluster_id: int, name: str) -> HttpResponse:
        """A button was pressed: ask for what it says, and go back to the page."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        cluster = self._seen(request, cluster_id)
        verb = VERBS.get(name)
        if verb is None:
            raise Http404(f"There is no verb {name}.")
        if not self.has_change_permission(request, cluster):
            raise PermissionDenied
        try:
            _ask(self, request, cluster, verb)
        except errors.HpcError as error:
            self.message_user(request, str(error), messages.WARNING)
        else:
            self.message_user(request, f"{verb.label} is asked for: see below what comes of it.")
        return HttpResponseRedirect(cluster_page.url(cluster, "change"))

    def host_keys_view(self, request: HttpRequest, cluster_id: int) -> HttpResponse:
        """Compare, confirm, withdraw."""
        return host_keys.page(self, request, self._seen(request, cluster_id))

    def _seen(self, request: HttpRequest, cluster_id: int) -> HpcCluster:
        cluster = get_object_or_404(HpcCluster, pk=cluster_id)
        if not self.has_view_permission(request, cluster):
            raise PermissionDenied
        return cluster

    def _panel(self, request: HttpRequest, cluster: HpcCluster) -> dict[str, Any]:
        urls = {name: cluster_page.url(cluster, name) for name in ("now", "host_keys")}
        return {**cluster_page.panel(cluster, request.user), "urls": urls}


def _link(cluster: HpcCluster) -> ClusterLink | None:
    return getattr(cluster, "link", None)
