"""System checks of the standalone project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core import checks

MADE_UP = "django-insecure-made-up-"
"""How a secret key begins that a process made for itself; `check --deploy` knows it too."""


@checks.register()
def check_secret_key(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """hpc.W004: each process has a secret key of its own."""
    if settings.DEBUG or not settings.SECRET_KEY.startswith(MADE_UP):
        return []
    return [
        checks.Warning(
            "DJANGO_SECRET_KEY is not set, so each process makes up a key of its own: with more"
            " than one web process logins fail at random, and all end with a restart. Set it to"
            " 50 random characters, the same for all processes.",
            id="hpc.W004",
        )
    ]
