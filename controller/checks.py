"""System checks: a bad setting stops the start with a sentence that names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from . import conf, errors

IMPORT_ERRORS = (ImportError, ImproperlyConfigured, ValueError, TypeError)
"""What a path that leads nowhere raises: ValueError and TypeError where it begins with a dot."""


def refuse_bad_settings() -> None:
    """Raise Misconfigured with a sentence for each setting that must stop a start."""
    found = [*check_settings(None), *check_job_class(None)]
    sentences = [str(message.msg) for message in found if message.is_serious()]
    if sentences:
        raise errors.Misconfigured(" ".join(sentences))


@checks.register()
def check_settings(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """hpc.E001: a setting is missing or wrong; hpc.W002: an HPC_* name that means nothing."""
    found: list[checks.CheckMessage] = [
        checks.Error(sentence, id="hpc.E001") for sentence in conf.problems()
    ]
    if conf.is_set("HPC_WEBSOCKET_PORT"):
        found.append(
            checks.Warning(
                "HPC_WEBSOCKET_PORT is reserved for clusters that call back, which do not exist"
                " yet: nothing listens on it.",
                id="hpc.W001",
            )
        )
    found.extend(
        checks.Warning(f"The setting {name} means nothing: see docs/settings.md.", id="hpc.W002")
        for name in conf.unknown_names()
    )
    return found


@checks.register()
def check_job_class(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """hpc.E002: HPC_JOB_CLASS is no job model; hpc.E003: HPC_CLUSTER_CHOOSER is no function."""
    if conf.problems():
        return []
    return [*_job_class_problems(conf.get().job_class), *_chooser_problems()]


def _job_class_problems(path: str) -> list[checks.CheckMessage]:
    from .models import HpcJob

    try:
        job_class = import_string(path)
    except IMPORT_ERRORS as error:
        return [checks.Error(f"HPC_JOB_CLASS is {path!r}: {error}.", id="hpc.E002")]
    if not (isinstance(job_class, type) and issubclass(job_class, HpcJob)):
        return [
            checks.Error(
                f"HPC_JOB_CLASS is {path!r}; it must be a subclass of controller.models.HpcJob.",
                id="hpc.E002",
            )
        ]
    return []


def _chooser_problems() -> list[checks.CheckMessage]:
    path = conf.get().cluster_chooser
    if not path:
        return []
    try:
        chooser = import_string(path)
    except IMPORT_ERRORS as error:
        return [checks.Error(f"HPC_CLUSTER_CHOOSER is {path!r}: {error}.", id="hpc.E003")]
    if not callable(chooser):
        return [checks.Error(f"HPC_CLUSTER_CHOOSER is {path!r}: no function.", id="hpc.E003")]
    return []


@checks.register()
def check_sqlite(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """hpc.W003: SQLite whose transactions fail when another began to write in between."""
    return [
        checks.Warning(
            f"The database {alias!r} is SQLite: set 'transaction_mode': 'IMMEDIATE' in its"
            " OPTIONS, so that writers wait for each other.",
            id="hpc.W003",
        )
        for alias in hasty_databases(settings.DATABASES)
    ]


def hasty_databases(databases: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of the SQLite databases that don't begin their transactions with the write lock."""
    return [
        alias
        for alias, database in databases.items()
        if database["ENGINE"].endswith("sqlite3")
        and database.get("OPTIONS", {}).get("transaction_mode") != "IMMEDIATE"
    ]
