"""The standalone project: migrations, checks, and what its servers load."""

import io

import pytest
from django.core.management import call_command
from django.test import Client


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
