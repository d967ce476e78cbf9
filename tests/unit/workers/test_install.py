"""What `install` puts into an app."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from django import db

from controller import publish
from workers import install


def test_every_published_name_is_registered() -> None:
    app = Celery("portal", set_as_current=False)
    install.install(app)
    app.loader.import_default_modules()
    assert [name for name in publish.TASKS if name not in app.tasks] == []


def test_no_task_of_ours_is_acknowledged_late_whatever_the_portal_sets() -> None:
    app = Celery("portal", set_as_current=False)
    app.conf.task_acks_late = True
    install.install(app)
    app.loader.import_default_modules()
    assert [name for name in publish.TASKS if app.tasks[name].acks_late] == []


def test_a_portal_keeps_its_own_default_queue() -> None:
    app = Celery("portal", set_as_current=False)
    install.install(app)
    assert app.conf.task_default_queue == "celery"


def test_workers_of_other_queues_are_left_alone() -> None:
    assert install.serves_us({"hpc"})
    assert install.serves_us({"celery", "files"})
    assert not install.serves_us({"celery", "mail"})


@pytest.mark.parametrize(
    ("options", "configured", "expected"),
    [
        ({"queues": "files"}, None, 64),
        ({"queues": "files", "concurrency": 6}, None, None),
        ({"queues": "files"}, 20, 20),
        ({"queues": "hpc"}, None, None),
    ],
)
def test_files_workers_have_threads_for_transfers_unless_somebody_names_them(
    options: dict[str, Any], configured: int | None, expected: int | None
) -> None:
    app = Celery("portal", set_as_current=False, broker="memory://")
    install.install(app)
    app.conf.worker_concurrency = configured
    install._prepare(SimpleNamespace(app=app, hostname="w@here"), options)
    assert app.conf.worker_concurrency == expected


@pytest.mark.parametrize(
    ("task", "closed"),
    [(publish.FILES_DOWNLOAD, "close_all"), (publish.SUBMIT_JOB, "close_old_connections")],
)
def test_threads_that_rest_after_a_file_hold_no_connection_to_the_database(
    monkeypatch: pytest.MonkeyPatch, task: str, closed: str
) -> None:
    called: list[str] = []
    monkeypatch.setattr(db.connections, "close_all", lambda: called.append("close_all"))
    monkeypatch.setattr(db, "close_old_connections", lambda: called.append("close_old_connections"))
    install._tidy_database(SimpleNamespace(name=task, request=None))
    assert called == [closed]
