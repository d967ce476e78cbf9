"""The database away: links go mute and stay, and go on over the same transports."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from controller.lifecycle import JobStatus
from controller.models import HpcCluster
from ops import services
from tests import stack as stacks
from tests.stack import Stack

OUTAGE_S = 5.0
"""Longer than the lease lives, so that every link has gone mute."""


def greetings(stack: Stack, cluster: HpcCluster) -> tuple[int, int]:
    """How often the daemon was connected to, and how often greeted."""
    log = (stack.client_path / "log" / f"test.{cluster.pk}.log").read_text()
    return log.count("connection open"), log.count("link_greeted")


def test_a_locked_database_mutes_the_links_and_no_login_follows(
    short_directory: Path, own_redis: services.Redis, django_db_blocker: Any
) -> None:
    path = short_directory / "db.sqlite3"
    with (
        django_db_blocker.unblock(),
        stacks.running(short_directory, own_redis, f"sqlite:///{path}") as stack,
    ):
        stack.start_worker()
        cluster = stack.add_cluster()
        stack.wait_up(cluster)
        job = stack.submit(cluster, stack.script_until(stack.directory / "go"))
        stack.wait_status(job, JobStatus.RUNNING)
        before = greetings(stack, cluster)
        with closing(sqlite3.connect(path, isolation_level=None, timeout=20)) as other:
            other.execute("BEGIN IMMEDIATE")
            (stack.directory / "go").touch()
            time.sleep(OUTAGE_S)  # the outage itself
            other.execute("ROLLBACK")
        assert stack.wait_status(job).status is JobStatus.COMPLETED
        assert stack.wait_status(stack.submit(cluster)).status is JobStatus.COMPLETED
        connections, greeted = greetings(stack, cluster)
        assert connections == before[0], "the transport was kept"
        assert greeted > before[1], "the link greeted again after the doubt"
        assert len(stack.runs()) == 2


@pytest.fixture
def own_postgres(short_directory: Path) -> Iterator[services.Postgres]:
    """A PostgreSQL for one test alone, which may stop and start it."""
    directory = short_directory / "pg"
    short_directory.chmod(0o711)
    server = services.Postgres(directory)
    server.start()
    yield server
    server.stop()


def test_a_database_restart_is_no_storm_of_logins(
    short_directory: Path,
    own_redis: services.Redis,
    own_postgres: services.Postgres,
    django_db_blocker: Any,
) -> None:
    url = own_postgres.create_database("stack")
    with (
        django_db_blocker.unblock(),
        stacks.running(short_directory, own_redis, url) as stack,
    ):
        stack.start_worker()
        clusters = [stack.add_cluster(f"c{number}") for number in range(3)]
        for cluster in clusters:
            stack.wait_up(cluster)
        job = stack.submit(clusters[0], stack.script_until(stack.directory / "go"))
        stack.wait_status(job, JobStatus.RUNNING)
        before = [greetings(stack, cluster)[0] for cluster in clusters]
        own_postgres.stop()
        (stack.directory / "go").touch()
        time.sleep(OUTAGE_S)  # the outage itself
        own_postgres.start()
        stacks.reconnect()
        assert stack.wait_status(job).status is JobStatus.COMPLETED
        for cluster in clusters:
            assert stack.wait_status(stack.submit(cluster)).status is JobStatus.COMPLETED
        assert [greetings(stack, cluster)[0] for cluster in clusters] == before
        assert len(stack.runs()) == 4
