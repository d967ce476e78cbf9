"""Stacks for the tests of workers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.models import HpcCluster
from ops import services
from tests import stack as stacks


@pytest.fixture
def stack(
    short_directory: Path, own_redis: services.Redis, django_db_blocker: Any
) -> Iterator[stacks.Stack]:
    """A stack on SQLite, for what does not depend on the kind of database: it runs once."""
    url = f"sqlite:///{short_directory}/db.sqlite3"
    with (
        django_db_blocker.unblock(),
        stacks.running(short_directory, own_redis, url) as made,
    ):
        yield made


@pytest.fixture
def any_stack(
    short_directory: Path, own_redis: services.Redis, database_url: str, django_db_blocker: Any
) -> Iterator[stacks.Stack]:
    """A stack on the database under test: leases and claims are proved on each kind."""
    with (
        django_db_blocker.unblock(),
        stacks.running(short_directory, own_redis, database_url) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def shared_stack(
    request: pytest.FixtureRequest, test_database: str, django_db_blocker: Any
) -> Iterator[stacks.Stack]:
    """A stack for a whole module, with a worker of each kind; its tests are marked `database`."""
    directory = Path(tempfile.mkdtemp(prefix="hpc-t-", dir="/tmp"))
    url = f"sqlite:///{directory}/db.sqlite3"
    if test_database == "postgresql":
        url = request.getfixturevalue("postgres_server").create_database(directory.name[6:])
    redis = services.Redis(directory / "redis", with_port=True)
    redis.start()
    try:
        with django_db_blocker.unblock(), stacks.running(directory, redis, url) as made:
            made.start_worker({"HPC_CLUSTER_TASK_CAP": "2"})
            made.start_worker(queues="files")
            yield made
    finally:
        redis.stop()
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def cluster(shared_stack: stacks.Stack) -> HpcCluster:
    """A cluster of the shared stack, linked."""
    made = shared_stack.add_cluster()
    shared_stack.wait_up(made)
    return made
