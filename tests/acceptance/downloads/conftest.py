"""One system for all tests of downloads: it takes as long to start as they do.

Everything is real: PostgreSQL, Redis, workers, web servers for ASGI and for WSGI, sshd.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops import services
from tests import stack as stacks
from tests.integration.ssh.site import Site

from .house import House, Portal, serving

SETTINGS = {"HPC_LOGINS_PER_MINUTE": "600", "HPC_LOGINS_PER_HOUR": "36000"}


@pytest.fixture(scope="package")
def site(service_directory: Path) -> Iterator[Site]:
    directory = service_directory / "downloads"
    directory.mkdir(mode=0o755)
    made = Site(directory)
    yield made
    assert not made.close()


@pytest.fixture(scope="package")
def house(
    site: Site, postgres_server: services.Postgres, django_db_blocker: Any
) -> Iterator[House]:
    with tempfile.TemporaryDirectory(prefix="hpc-t-", dir="/tmp") as place:
        directory = Path(place)
        redis = services.Redis(directory / "redis", with_port=True)
        redis.start()
        url = postgres_server.create_database("downloads")
        settings = {**SETTINGS, "HPC_IPC_UNIX_SOCKET": f"{directory}/relay"}
        try:
            with (
                django_db_blocker.unblock(),
                stacks.running(directory, redis, url, settings) as made,
            ):
                yield House(made, site)
        finally:
            redis.stop()


@pytest.fixture(scope="package")
def portal(house: House) -> Iterator[Portal]:
    """Web servers that meet the files worker at sockets."""
    with serving(house, {}) as made:
        yield made


@pytest.fixture
def ready(portal: Portal) -> Portal:
    """Whatever became of the files worker before, one answers."""
    portal.house.wait_files({})
    return portal
