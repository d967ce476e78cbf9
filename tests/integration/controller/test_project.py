"""The standalone project: migrations, checks, and what its servers load."""

import io

import pytest
from django.core.management import call_command
from django.test import Client

from controller import checks


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
