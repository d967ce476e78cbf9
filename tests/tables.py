"""The program's tables: migrated once a process, and copied into each further empty database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import connection

TEMPLATE = "hpc_tables"

_sqlite: list[bytes] = []
_postgres: set[tuple[str, str]] = set()
"""The servers, as (host, port), that have a database of the name `TEMPLATE`."""


def make() -> None:
    """Make the tables in the database that Django is on, which is empty."""
    (_make_in_postgres if connection.vendor == "postgresql" else _make_in_sqlite)()


def _make_in_sqlite() -> None:
    if _sqlite:
        connection.close()
        Path(connection.settings_dict["NAME"]).write_bytes(_sqlite[0])
        return
    call_command("migrate", verbosity=0)
    database: Any = connection.connection
    _sqlite.append(database.serialize())


def _make_in_postgres() -> None:
    settings = connection.settings_dict
    server, name = (str(settings["HOST"]), str(settings["PORT"])), settings["NAME"]
    if server not in _postgres:
        call_command("migrate", verbosity=0)
        _copy(name, TEMPLATE)
        _postgres.add(server)
        return
    _execute(f'DROP DATABASE "{name}"')
    _copy(TEMPLATE, name)


def _copy(source: str, name: str) -> None:
    _execute(f'CREATE DATABASE "{name}" TEMPLATE "{source}"')


def _execute(statement: str) -> None:
    """Run a statement that nobody may be connected to its database for."""
    connection.close()
    with connection._nodb_cursor() as cursor:
        cursor.execute(statement)
