"""Doing one thing to many chosen objects, and saying what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest

from .. import errors
from ..models import HpcJob

REASONS_SHOWN = 5


def run(
    model_admin: admin.ModelAdmin[Any],
    request: HttpRequest,
    objects: Iterable[Any],
    act: Callable[[Any], object],
    done: str,
) -> None:
    """Do `act` to each object; `done` completes "2 jobs ...". Refusals are told apart."""
    reasons: list[str] = []
    count = 0
    for chosen in objects:
        try:
            act(chosen)
            count += 1
        except errors.HpcError as error:
            reasons.append(str(error))
    if count:
        model_admin.message_user(request, f"{_counted(model_admin, count)} {done}")
    if reasons:
        shown = " ".join(reasons[:REASONS_SHOWN])
        more = f" (and {len(reasons) - REASONS_SHOWN} more)" * (len(reasons) > REASONS_SHOWN)
        sentence = f"{_counted(model_admin, len(reasons))} skipped: {shown}{more}"
        model_admin.message_user(request, sentence, messages.WARNING)


def _counted(model_admin: admin.ModelAdmin[Any], count: int) -> str:
    noun = "job" if issubclass(model_admin.model, HpcJob) else "cluster"
    return f"{count} {noun}{'s' * (count != 1)}"
