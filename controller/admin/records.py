"""Pages of what workers and services write: to be read, not edited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from ..models import (
    ClusterLink,
    FileTransfer,
    HostKey,
    JobEvent,
    LoginAttempt,
    OutboxCursor,
    Procedure,
    Step,
    UpkeepLease,
    WebsocketToken,
    Worker,
)

RECORDS = (
    ClusterLink,
    FileTransfer,
    HostKey,
    JobEvent,
    LoginAttempt,
    OutboxCursor,
    Procedure,
    Step,
    WebsocketToken,
)
"""What goes with its cluster or job."""


def names(model: type[Model], but: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The names of the model's columns."""
    fields = [field for field in model._meta.concrete_fields if not field.primary_key]
    return tuple(field.name for field in fields if field.name not in but)


if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]  # generic in the stubs alone
    StepTable = admin.TabularInline[Step, Procedure]
else:
    ModelAdmin = admin.ModelAdmin
    StepTable = admin.TabularInline


def page_name(model_admin: admin.ModelAdmin[Any]) -> str:
    """What the names of a model's pages begin with."""
    return f"{model_admin.opts.app_label}_{model_admin.opts.model_name}"


class OwnerAdmin(ModelAdmin):
    """Rows that take their records with them when they go; records alone stay."""

    verbatim: tuple[str, ...] = ()
    """Columns whose white space counts."""

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        shown, counts, needed, protected = super().get_deleted_objects(objs, request)
        records = {str(model._meta.verbose_name) for model in RECORDS}
        return shown, counts, needed - records, protected

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name in self.verbatim:
            field.strip = False  # type: ignore[union-attr]
        return field


class RecordAdmin(ModelAdmin):
    """Read-only: nobody adds, changes or deletes by hand."""

    actions = None

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(ClusterLink)
class ClusterLinkAdmin(RecordAdmin):
    list_display = ("cluster", "wanted", "state", "holder", "epoch", "generation", "last_heard_at")
    list_filter = ("state", "wanted")
    list_select_related = ("cluster",)


@admin.register(Worker)
class WorkerAdmin(RecordAdmin):
    list_display = ("name", "host", "pid", "started_at", "heartbeat_at", "is_draining")


@admin.register(JobEvent)
class JobEventAdmin(RecordAdmin):
    list_display = ("id", "at", "job", "event", "status_before", "status_after", "source", "cause")
    list_filter = ("event", "source")
    list_select_related = ("job",)
    search_fields = ("=job__id", "job__tag")
    show_full_result_count = False


@admin.register(FileTransfer)
class FileTransferAdmin(RecordAdmin):
    list_display = ("id", "cluster", "job", "direction", "path", "state", "done_bytes")
    list_filter = ("state", "direction")
    list_select_related = ("cluster", "job")


@admin.register(HostKey)
class HostKeyAdmin(RecordAdmin):
    list_display = ("fingerprint", "key_type", "cluster", "address", "is_offered", "confirmed_at")
    list_filter = ("is_offered", "key_type")
    list_select_related = ("cluster",)
    search_fields = ("fingerprint", "address", "cluster__name")


@admin.register(LoginAttempt)
class LoginAttemptAdmin(RecordAdmin):
    list_display = ("at", "cluster", "purpose", "outcome")
    list_filter = ("purpose", "outcome")
    list_select_related = ("cluster",)
    show_full_result_count = False


class StepInline(StepTable):
    """The steps of a procedure, as they were done."""

    model = Step
    fields = readonly_fields = ("name", "outcome", "took_s", "detail", "at")
    can_delete = False
    extra = 0

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Procedure)
class ProcedureAdmin(RecordAdmin):
    list_display = ("id", "cluster", "kind", "state", "requested_at", "requested_by", "reason")
    list_filter = ("kind", "state")
    list_select_related = ("cluster", "requested_by")
    inlines = (StepInline,)


@admin.register(Step)
class StepAdmin(RecordAdmin):
    list_display = ("id", "procedure", "name", "outcome", "took_s", "at")
    list_filter = ("outcome",)
    list_select_related = ("procedure__cluster",)


@admin.register(WebsocketToken)
class WebsocketTokenAdmin(RecordAdmin):
    list_display = ("token", "cluster", "used", "is_file", "timestamp")


@admin.register(OutboxCursor)
class OutboxCursorAdmin(RecordAdmin):
    list_display = ("cluster", "outbox_id", "seq")


@admin.register(UpkeepLease)
class UpkeepLeaseAdmin(RecordAdmin):
    list_display = ("name", "holder", "expires_at")
