"""Who may log in to clusters: processes that install the workers, and the project's commands."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from celery import Celery

import manage
from controller import errors, ssh_opener
from workers import install


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_opener, "_opener", None)


def test_installing_the_workers_hands_in_a_way() -> None:
    install.install(Celery("portal", set_as_current=False))
    assert ssh_opener._opener is install._open_ssh


def test_commands_of_the_standalone_project_have_it(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["manage.py", "version"])
    manage.main()
    assert ssh_opener._opener is install._open_ssh


def test_a_process_without_the_workers_requirements_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install.offer_ssh()
    for name in [n for n in sys.modules if n.partition(".")[0] == "paramiko"]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("workers.operations.reach", "workers.links.ssh"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr("workers.operations.reach", raising=False)
    with pytest.raises(errors.Misconfigured, match="paramiko is not installed"):
        ssh_opener.open_ssh("north")
