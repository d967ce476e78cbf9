"""Clusters reached over SSH by real workers: logged in to, bootstrapped with steps, held."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.lifecycle import JobStatus
from controller.models import LoginState, ProcedureState
from controller.services import clusters
from ops import services
from tests import stack as stacks

from .server_side import Portal, told
from .site import Site


@pytest.fixture(scope="module")
def portal(
    request: pytest.FixtureRequest, site: Site, test_database: str, django_db_blocker: Any
) -> Iterator[Portal]:
    """Two workers over one database, and the run's servers; its tests are marked `database`."""
    directory = Path(tempfile.mkdtemp(prefix="hpc-t-", dir="/tmp"))
    url = f"sqlite:///{directory}/db.sqlite3"
    if test_database == "postgresql":
        url = request.getfixturevalue("postgres_server").create_database(directory.name[6:])
    redis = services.Redis(directory / "redis", with_port=True)
    redis.start()
    try:
        with django_db_blocker.unblock(), stacks.running(directory, redis, url) as made:
            for _ in range(2):
                made.start_worker()
            yield Portal(made, site)
    finally:
        redis.stop()
        shutil.rmtree(directory)


def test_registered_cluster_is_bootstrapped_and_runs_a_job(portal: Portal, site: Site) -> None:
    cluster = portal.register(site.server(), site.add_account("line"))
    begun_at = time.monotonic()
    procedure = clusters.bootstrap(cluster)
    clusters.connect(cluster)
    portal.wait_over(procedure, 30)
    assert time.monotonic() - begun_at < 30
    assert procedure.state == ProcedureState.DONE, procedure.detail
    assert told(procedure) == {
        "Log in": "done",
        "Look at the client": "done",
        "Upload the client": "done",
        "Look for the daemon": "done",
        "Start the daemon": "done",
        "Log out and look for the daemon": "done",
        "Greet the daemon": "done",
    }
    link = portal.stack.wait_up(cluster)
    assert link.address == "127.0.0.1"
    assert link.login_state == LoginState.GOOD
    assert link.outlives_login_on == os.uname().nodename
    job = portal.stack.submit(cluster, "#!/bin/sh\nid -un\n")
    assert portal.stack.wait_status(job).status is JobStatus.COMPLETED
