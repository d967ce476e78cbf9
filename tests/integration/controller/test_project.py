"""The standalone project: migrations, checks, and what its servers load."""

import io
import os
import subprocess
import sys

import pytest
from django.core.management import call_command
from django.test import Client
from pytest_django import Settings

from controller import checks
from controller.project import checks as project_checks


def test_models_and_migrations_agree(db: None) -> None:
    call_command("makemigrations", check=True, dry_run=True, stdout=io.StringIO())


def test_the_checks_find_nothing(db: None) -> None:
    call_command("check", stdout=io.StringIO())


@pytest.mark.parametrize("server", ["asgi", "wsgi"])
def test_servers_load_it(server: str) -> None:
    from importlib import import_module

    assert callable(import_module(f"controller.project.{server}").application)


def test_the_first_page_leads_to_the_admin(client: Client) -> None:
    response = client.get("/")
    assert (response.status_code, response.headers["Location"]) == (302, "/admin/")


def test_a_sqlite_that_does_not_wait_is_warned_of() -> None:
    engine = "django.db.backends.sqlite3"
    databases = {
        "default": {"ENGINE": engine},
        "other": {"ENGINE": engine, "OPTIONS": {"transaction_mode": "IMMEDIATE"}},
        "third": {"ENGINE": "django.db.backends.postgresql"},
    }
    assert checks.hasty_databases(databases) == ["default"]
    assert checks.check_sqlite(None) == []


def test_a_secret_key_that_each_process_makes_up_is_warned_of(settings: Settings) -> None:
    assert project_checks.check_secret_key(None) == []
    settings.SECRET_KEY = project_checks.MADE_UP + "x" * 50
    assert [found.id for found in project_checks.check_secret_key(None)] == ["hpc.W004"]
    settings.DEBUG = True
    assert project_checks.check_secret_key(None) == []


@pytest.mark.parametrize(("key", "is_warned"), [("", True), ("k" * 50, False)])
def test_the_project_makes_a_key_up_where_none_is_set(key: str, is_warned: bool) -> None:
    project = "controller.project.settings"
    environment = {**os.environ, "DJANGO_SECRET_KEY": key, "DJANGO_SETTINGS_MODULE": project}
    done = subprocess.run(
        [sys.executable, "manage.py", "check"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert ("hpc.W004" in done.stderr) == is_warned
