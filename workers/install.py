"""Puts the gateway into a Celery app: the project's own, or a portal's. Creates none.

    app = Celery("portal")
    workers.install.install(app)

Nothing here imports models: an app is made before Django is ready.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from typing import Any

import celery.exceptions
from celery import Celery, signals

from controller import conf, errors, publish, ssh_opener

logger = logging.getLogger(__name__)

FAIL_FAST = {"max_retries": 0, "interval_start": 0, "interval_step": 0, "interval_max": 0}

SETTINGS: dict[str, Any] = {
    # A message is a nudge: acknowledged early, lost without harm. acks_late on Redis crashes the
    # worker when the broker restarts with a task in flight.
    "task_acks_late": False,
    # With both, nothing that was prefetched runs after its queue was given up.
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    "broker_connection_retry_on_startup": True,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "task_publish_retry": True,
    "task_publish_retry_policy": {"max_retries": 0},
    "result_backend_transport_options": {"retry_policy": FAIL_FAST},
    "broker_transport_options": {
        "visibility_timeout": 86400,
        "priority_steps": [0],
        "socket_connect_timeout": 1,
        "socket_timeout": 30,
    },
    "worker_hijack_root_logger": False,
}
"""What a worker of these tasks needs, forced at its start; measured, not guessed."""

DEFAULTS: dict[str, Any] = {
    "task_serializer": "json",
    "result_serializer": "json",
    "accept_content": ["json"],
    "result_expires": 600,
    "worker_send_task_events": True,
    # Celery closes a task's database connections before and after it, so that each task connects
    # anew; ours are kept, and checked as Django does around a request (_tidy_database).
    # Source: DjangoWorkerFixup.close_database in celery/fixups/django.py of 5.7.0
    "CELERY_DB_REUSE_MAX": sys.maxsize,
}
"""What an app may set otherwise."""


def install(app: Celery) -> None:
    """Add tasks, settings and the keeper to `app`; nothing runs before a worker starts."""
    app.add_defaults(lambda: DEFAULTS)
    app.autodiscover_tasks(["workers"], related_name="tasks")
    # By name: loaded when a worker starts, after Django.
    app.steps["worker"].add("workers.bootstep:KeeperStep")
    app.steps["worker"].add("workers.bootstep:DataStep")
    app.steps["consumer"].add("workers.bootstep:QueuesStep")
    signals.celeryd_init.connect(_prepare, dispatch_uid="workers.install.prepare", weak=False)
    for signal in (signals.task_prerun, signals.task_postrun):
        signal.connect(_tidy_database, dispatch_uid="workers.install.tidy_database", weak=False)
    offer_ssh()


def offer_ssh() -> None:
    """Let `HpcCluster.get_ssh_connection` log in from this process: a worker, or a command."""
    ssh_opener.set_opener(_open_ssh)


def _open_ssh(cluster: Any) -> tuple[Any, Any]:
    try:
        from .operations import reach  # needs Django to be ready, and paramiko
    except ModuleNotFoundError as missing:
        raise errors.Misconfigured(
            f"This process can't log in to cluster {cluster}: {missing.name} is not installed. See"
            " requirements/workers.txt."
        ) from missing
    return reach.open_for_controller(cluster)


def _tidy_database(sender: Any = None, **_: Any) -> None:
    """Let go of this thread's connections that are broken or older than CONN_MAX_AGE.

    Of a files worker's threads let go of all: they are many, each may rest for hours, and a
    connection that rests is one of PostgreSQL's hundred.
    """
    if getattr(getattr(sender, "request", None), "is_eager", False):
        return  # within a request, whose own they are
    from django import db  # needs Django's settings, which a worker has when a task runs

    if getattr(sender, "name", "") in publish.FILES_TASKS:
        db.connections.close_all()
    else:
        db.close_old_connections()


def _prepare(instance: Any = None, options: Any = None, **_: Any) -> None:
    """Refuse or set up a worker that serves our queues; leave others alone."""
    app = instance.app
    queues = _queues(app, options or {})
    if not serves_us(queues):
        return
    refuse_unsafe()
    from . import inspection  # loads what only workers need

    inspection.hide_passwords()
    for name, value in SETTINGS.items():
        merged = {**(app.conf[name] or {}), **value} if isinstance(value, dict) else value
        app.conf[name] = merged
    _refuse_unknown_broker(app)
    if "worker_pool" not in app.conf.changes:
        app.conf.worker_pool = "threads"
    if publish.FILES_QUEUE in queues and not _names_threads(app, options or {}):
        # Not one a core, as Celery has it: a transfer mostly waits.
        app.conf.worker_concurrency = conf.get().files_threads
    if instance.hostname.startswith("celery@"):
        # Two workers of one name on one host would be taken for one.
        instance.hostname = f"hpc{os.getpid()}@{socket.gethostname()}"


def serves_us(queues: set[str]) -> bool:
    """Whether a worker of these queues runs our tasks."""
    return bool(queues & {publish.QUEUE, publish.FILES_QUEUE})


def refuse_unsafe() -> None:
    """Raise SystemExit with a sentence where a worker must not start."""
    from controller import checks  # needs Django to be ready, which it is when a worker starts

    try:
        checks.refuse_bad_settings()
        settings = conf.get()
    except errors.Misconfigured as problem:
        raise SystemExit(str(problem)) from problem
    if os.geteuid() == 0 and not settings.allow_root:
        raise SystemExit(
            "Workers don't run as root (uid 0): what they start would run as root too. Use another "
            "account, or set HPC_ALLOW_ROOT=1 if that is meant."
        )


def _refuse_unknown_broker(app: Celery) -> None:
    """Name a bad address in a sentence; nothing is connected to yet."""
    try:
        logger.debug("broker %s", app.connection_for_read().transport.driver_type)
        logger.debug("results %s", type(app.backend).__name__)
    except (ImportError, KeyError, ValueError, celery.exceptions.ImproperlyConfigured) as problem:
        raise SystemExit(
            f"The address of the broker or of its results can't be used ({problem}): see "
            "HPC_REDIS_URL, or the app's broker_url and result_backend."
        ) from problem


def _names_threads(app: Celery, options: dict[str, Any]) -> bool:
    """Whether somebody said how many tasks run at once (-c, worker_concurrency)."""
    return bool(options.get("concurrency") or app.conf.worker_concurrency)


def _queues(app: Celery, options: dict[str, Any]) -> set[str]:
    asked = options.get("queues")
    if asked:
        return set(asked.split(",") if isinstance(asked, str) else asked)
    configured = {queue.name for queue in app.conf.task_queues or ()}
    return configured or {app.conf.task_default_queue}
