"""The page "Hpc Clusters"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from .. import queries
from ..models import ClusterLink, HpcCluster
from ..services import clusters
from . import actions, records

if TYPE_CHECKING:
    LinkFields = admin.StackedInline[ClusterLink, HpcCluster]  # generic in the stubs alone
else:
    LinkFields = admin.StackedInline

TRUST = (
    "All who use this cluster share one account there: it is the boundary of trust. The local"
    " carrier runs everything as the worker's own user."
)


class LinkInline(LinkFields):
    """What is known of the cluster's link; workers write it."""

    model = ClusterLink
    verbose_name_plural = "link"
    can_delete = False
    readonly_fields = records.names(ClusterLink, but=("cluster",))
    fields = readonly_fields

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(HpcCluster)
class HpcClusterAdmin(records.OwnerAdmin):
    """Register clusters, link them, see how they are."""

    list_display = ("name", "host_name", "scheduler", "link_state", "link_detail", "open_jobs")
    list_select_related = ("link",)
    search_fields = ("name", "host_name")
    actions = ("connect", "disconnect", "bootstrap")
    inlines = (LinkInline,)
    verbatim = ("setup_commands",)
    fieldsets = (
        (None, {"fields": ("name", "host_name", "port", "username"), "description": TRUST}),
        ("Client", {"fields": ("carrier", "client_path", "python", "mode")}),
        (
            "Jobs",
            {"fields": ("scheduler", "setup_commands", "umask", "group", "labels")},
        ),
    )

    @admin.display(description="link")
    def link_state(self, cluster: HpcCluster) -> str:
        link = _link(cluster)
        if queries.is_connected(cluster):
            return "up"
        return link.state if link is not None and link.wanted else "not wanted"

    @admin.display(description="what to know")
    def link_detail(self, cluster: HpcCluster) -> str:
        link = _link(cluster)
        return link.blocked_detail if link is not None and link.wanted else ""

    @admin.display(description="open jobs")
    def open_jobs(self, cluster: HpcCluster) -> int:
        return sum(queries.backlog(cluster.pk).values())

    @admin.action(description="Connect the chosen clusters", permissions=("change",))
    def connect(self, request: HttpRequest, chosen: QuerySet[HpcCluster]) -> None:
        actions.run(self, request, chosen, clusters.connect, "to be linked: a worker does it.")

    @admin.action(description="Disconnect the chosen clusters", permissions=("change",))
    def disconnect(self, request: HttpRequest, chosen: QuerySet[HpcCluster]) -> None:
        done = "to be left alone: the worker closes the link; jobs there go on."
        actions.run(self, request, chosen, clusters.disconnect, done)

    @admin.action(description="Start the daemon of the chosen clusters", permissions=("change",))
    def bootstrap(self, request: HttpRequest, chosen: QuerySet[HpcCluster]) -> None:
        done = "to be looked at: a worker starts the daemon if none answers."
        actions.run(self, request, chosen, clusters.bootstrap, done)

    def save_model(self, request: HttpRequest, obj: HpcCluster, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        clusters.ensure_link(obj)

    def get_inlines(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.inlines if obj is not None else ()

    def has_delete_permission(self, request: HttpRequest, obj: HpcCluster | None = None) -> bool:
        link = queries.link_of(obj) if obj is not None else None
        is_linked = link is not None and (link.wanted or bool(link.holder))
        return not is_linked and super().has_delete_permission(request, obj)

    def get_actions(self, request: HttpRequest) -> Any:
        found = super().get_actions(request)
        found.pop("delete_selected", None)  # one by one, where the page can say why not
        return found


def _link(cluster: HpcCluster) -> ClusterLink | None:
    return getattr(cluster, "link", None)
