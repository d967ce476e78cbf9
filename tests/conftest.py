"""Fixtures for all tiers: private servers, short paths, the database under test."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dj_database_url
import hypothesis
import pytest

from ops import services
from tests.slurm_fixtures import pytest_terminal_summary, slurm_cluster, slurm_server

if TYPE_CHECKING:
    from tests.stack import Stack

__all__ = ["pytest_terminal_summary", "slurm_cluster", "slurm_server"]

# Whoever asks for one of these runs once on SQLite and once on PostgreSQL.
DATABASE_FIXTURES = {"db", "transactional_db", "django_db_setup", "database_url", "live_server"}
numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers; let SIGTERM end the run as Ctrl-C does, with its servers stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config.addinivalue_line("markers", "database: the test uses the database under test")
    # How long an example takes says how busy the machine is, not whether it is right.
    busy = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=busy)
    hypothesis.settings.load_profile("busy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use a database, so that the second run can select them."""
    for item in items:
        asked = DATABASE_FIXTURES.intersection(getattr(item, "fixturenames", ()))
        if asked or item.get_closest_marker("django_db"):
            item.add_marker("database")


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the source tree."""
    return Path(__file__).parent.parent


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A private directory with a path short enough for Unix sockets."""
    directory = Path(tempfile.mkdtemp(prefix="hpc-t-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def service_directory() -> Iterator[Path]:
    """Where the servers of this run live; only we can look into theirs."""
    directory = Path(tempfile.mkdtemp(prefix="hpc-s-", dir="/tmp"))
    # PostgreSQL may run as a user of its own and has to reach its directory in here.
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def redis_server(service_directory: Path) -> Iterator[services.Redis]:
    """A Redis on a free loopback port, shared by the run; `redis_url` is emptied for each test."""
    server = services.Redis(service_directory / "redis", with_port=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: services.Redis) -> str:
    """The URL of an empty Redis."""
    redis_server.empty()
    return redis_server.url


@pytest.fixture
def own_redis(short_directory: Path) -> Iterator[services.Redis]:
    """A Redis for one test alone, which may stop, start and empty it."""
    server = services.Redis(short_directory / "redis", with_port=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_server(service_directory: Path) -> Iterator[services.Postgres]:
    """A PostgreSQL shared by the run."""
    server = services.Postgres(service_directory / "postgres")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def postgres_url(postgres_server: services.Postgres) -> str:
    """The URL of an empty PostgreSQL database."""
    return postgres_server.create_database(f"test_{next(numbers)}")


@pytest.fixture(scope="session")
def test_database() -> str:
    """Which database this run is about: sqlite or postgresql."""
    return os.environ.get("HPC_TEST_DATABASE") or "sqlite"


@pytest.fixture
def database_url(request: pytest.FixtureRequest, test_database: str) -> str:
    """The URL of an empty database, for tests that start processes of the program."""
    if test_database == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        return url
    directory: Path = request.getfixturevalue("short_directory")
    return f"sqlite:///{directory}/db.sqlite3"


@pytest.fixture
def stack(
    short_directory: Path, own_redis: services.Redis, database_url: str, django_db_blocker: Any
) -> Iterator[Stack]:
    """A prepared stack with a Redis of its own; no worker runs yet."""
    from tests import stack as stacks  # needs Django's settings

    with (
        django_db_blocker.unblock(),
        stacks.running(short_directory, own_redis, database_url) as made,
    ):
        yield made


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    request: pytest.FixtureRequest, service_directory: Path, test_database: str
) -> None:
    """Point Django at the database under test, before pytest-django makes its test database."""
    from django.db import connections

    changes: dict[str, Any] = {"TEST": {"NAME": str(service_directory / "django.sqlite3")}}
    if test_database == "postgresql":
        server: services.Postgres = request.getfixturevalue("postgres_server")
        changes = {**dj_database_url.parse(server.url()), "TEST": {"NAME": "test_django"}}
    for settings in (connections.settings["default"], connections["default"].settings_dict):
        test_settings = {**settings["TEST"], **changes["TEST"]}
        settings.update(changes, TEST=test_settings)
