"""A bootstrap on request changes the client, and puts the one before back if it must."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from controller.lifecycle import JobStatus
from controller.models import HpcCluster, Procedure, ProcedureState
from controller.services import clusters
from tests.archives import doctored
from tests.stack import Stack
from workers.links import bridge, carriers, client_archive, upload

PYTHON = """\
#!/bin/bash
[ -e {lame} ] && [[ "$*" == *{name}" serve "* ]] && exit 1
exec -a "$0" {python} "$@"
"""
"""A Python under which one build does not start, for as long as a file is there."""


def test_a_bootstrap_upgrades_the_client_or_goes_back(stack: Stack) -> None:
    newer = client_archive.build()
    older = doctored(newer, ("cluster_client/build.py", '"0.1.0"', '"0.0.9"'))
    lame, python, go = (stack.directory / name for name in ("lame", "python3", "go"))
    base = Path(sys.base_prefix) / "bin" / "python3"
    python.write_text(PYTHON.format(lame=lame, name=newer.name, python=base))
    python.chmod(0o755)
    shutil.rmtree(stack.client_path)
    installation = bridge.Installation(str(stack.client_path), str(python))
    upload.put(carriers.LocalCarrier(), installation, older)
    stack.start_worker()
    cluster = stack.add_cluster(python=str(python))
    stack.wait_up(cluster)
    job = stack.submit(cluster, stack.script_until(go))
    stack.wait_status(job, JobStatus.RUNNING)

    lame.touch()
    failed = bootstrap(stack, cluster)
    assert (failed.state, failed.reason) == (ProcedureState.FAILED, "upgrade_failed")
    assert f"{older.name}, runs again" in failed.detail
    assert "Go back to the client before" in [step.name for step in failed.steps.all()]
    stack.wait_up(cluster)
    assert stack.link(cluster).client_build == older.build_hash

    lame.unlink()
    done = bootstrap(stack, cluster)
    assert (done.state, done.reason) == (ProcedureState.DONE, "")
    stack.wait_up(cluster)
    link = stack.link(cluster)
    assert (link.client_build, link.client_version) == (newer.build_hash, "0.1.0")
    assert "retired" in link.last_death
    go.touch()
    assert stack.wait_status(job).status is JobStatus.COMPLETED
    assert len(stack.runs()) == 1


def bootstrap(stack: Stack, cluster: HpcCluster) -> Procedure:
    """Ask for one and wait for its end."""
    asked = clusters.bootstrap(cluster)

    def is_over() -> bool:
        asked.refresh_from_db()
        return asked.finished_at is not None

    stack.wait(is_over, "the bootstrap to end", 60)
    return asked
