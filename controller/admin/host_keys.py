"""The page on which a person compares host keys, and trusts them or not."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse

from .. import errors, queries
from ..models import HpcCluster
from ..services import host_keys
from . import cluster_page

LONGEST_ID = 18
"""Digits: no database counts further."""
TEMPLATE = "admin/hpc_job_controller/hpccluster/host_keys.html"


def page(
    model_admin: admin.ModelAdmin[Any], request: HttpRequest, cluster: HpcCluster
) -> HttpResponse:
    """Show the keys; on POST trust the chosen ones, or trust them no more."""
    may_confirm = request.user.has_perm(cluster_page.CONFIRM)
    if request.method == "POST":
        if not may_confirm:
            raise PermissionDenied
        return _decide(model_admin, request, cluster)
    rows = cluster_page.key_rows(queries.host_keys_of(cluster))
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "cluster": cluster,
        "title": f"Host keys of {cluster.name}",
        "rows": rows,
        "has_changed_keys": any(row.is_changed for row in rows),
        "has_confirmed_keys": any(row.is_confirmed for row in rows),
        "may_confirm": may_confirm,
        "media": model_admin.media,
        "back": cluster_page.url(cluster, "change"),
    }
    return TemplateResponse(request, TEMPLATE, context)


def _decide(
    model_admin: admin.ModelAdmin[Any], request: HttpRequest, cluster: HpcCluster
) -> HttpResponse:
    is_withdrawal = "withdraw" in request.POST
    try:
        ids = _chosen(request)
        named = _names(cluster, ids)
        if is_withdrawal:
            host_keys.withdraw(cluster, ids)
        else:
            host_keys.confirm(cluster, ids, by=request.user)
    except errors.Invalid as error:
        model_admin.message_user(request, str(error), messages.ERROR)
        return HttpResponseRedirect(request.path)
    done = "Trusted no more" if is_withdrawal else "Confirmed"
    model_admin.message_user(request, f"{done}: {named}.")
    model_admin.log_change(request, cluster, f"Host keys: {done.lower()}: {named}.")
    if is_withdrawal:
        return HttpResponseRedirect(request.path)
    return HttpResponseRedirect(cluster_page.url(cluster, "change"))


def _names(cluster: HpcCluster, ids: list[int]) -> str:
    keys = cluster.host_keys.filter(pk__in=ids)
    return ", ".join(sorted({str(key) for key in keys}))


def _chosen(request: HttpRequest) -> list[int]:
    """The ids of the ticked rows; one key has a row for each address."""
    ticked = ",".join(request.POST.getlist("key")).split(",")
    if not all(word.isdecimal() and len(word) <= LONGEST_ID for word in ticked):
        raise errors.Invalid("No key was ticked: tick those that you have compared.")
    return [int(word) for word in ticked]
