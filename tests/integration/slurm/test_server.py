"""The private Slurm itself, without accounting: what it can't tell, and that nothing stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster_client.protocol import messages
from ops import slurm
from tests import leavings

from .conftest import SlurmSite, new_tag, wait_until


@pytest.fixture
def bare(short_directory):
    """A Slurm of one node without accounting."""
    server = slurm.Slurm(short_directory / "slurm", nodes=1, with_accounting=False)
    server.start()
    yield server
    server.stop()


def test_without_accounting_jobs_are_followed_by_the_queue_and_their_records(bare, short_directory):
    site, good, bad = SlurmSite(short_directory, bare), new_tag(), new_tag()
    recorder = site.start()
    hello = messages.Hello((1,), "test", 1, epoch=1, generation=1)
    told = recorder.engine.welcome(hello)
    assert (told.scheduler, told.capabilities.partitions) == ("slurm", ("main", "debug"))
    assert told.scheduler_version
    assert told.capabilities.has_accounting is False
    recorder.submit(good, "true")
    recorder.submit(bad, "exit 143", attempt=2)  # it is looked up first
    assert recorder.wait(good)["outcome"] == "completed"
    assert recorder.wait(bad)["signal"] == 15
    recorder.engine.stop()
    assert "accounting" not in [event.kind for event in recorder.events]
    assert "accounting" not in recorder.engine.status()["commands"]


def test_a_killed_node_leaves_nothing_behind(short_directory):
    server = slurm.Slurm(short_directory / "slurm", nodes=1, with_accounting=False)
    server.start()
    marker = short_directory / "ran"
    argv = ("sbatch", "--output=/dev/null", f"--wrap=touch {marker}; sleep 600")
    server.command(*argv)
    wait_until(marker.exists)
    server.kill_node(server.nodes[0])
    server.stop()
    wait_until(lambda: not leavings.processes(str(short_directory)), what="the end of all")
    assert not list(Path("/sys/fs/cgroup").glob(f"*/slurm_{server.nodes[0]}"))
