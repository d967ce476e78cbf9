"""What a worker refuses at its start, and what it starts on the cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from controller.lifecycle import JobStatus
from controller.models import ClusterLink, DaemonMode, HpcCluster
from controller.services import clusters
from ops import environment
from tests.stack import CHECKOUT, Stack


def refusal(directory: Path, queues: str = "hpc", **settings: str) -> str:
    """What a worker says that must not start; fails if it starts."""
    own = {
        "HPC_INSTANCE_ID": "test",
        "HPC_SECRET_KEYS": os.environ["HPC_SECRET_KEYS"],
        "HPC_DATA_DIRECTORY": str(directory),
        "HPC_REDIS_URL": f"redis+socket://{directory}/nobody",
        "HPC_ALLOW_ROOT": "1",
        **settings,
    }
    finished = subprocess.run(
        [*(sys.executable, "-m", "celery", "-A", "workers", "worker"), "-Q", queues],
        env=environment.of_children(os.environ, own),
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    return finished.stderr


def test_a_fault_point_is_refused_unless_allowed(tmp_path: Path) -> None:
    assert "HPC_FAULT_POINT" in refusal(tmp_path, HPC_FAULT_POINT="worker.submit.1:/tmp/x")


@pytest.mark.parametrize("queues", ["hpc", "files"])
def test_root_is_refused_unless_allowed(tmp_path: Path, queues: str) -> None:
    assert os.geteuid() == 0, "Only root can be refused for being root: run this as `make test`."
    assert "HPC_ALLOW_ROOT=1" in refusal(tmp_path, queues, HPC_ALLOW_ROOT="0")


@pytest.mark.parametrize(
    ("name", "value", "queues"),
    [
        ("HPC_INSTANCE_ID", "No Such!", "hpc"),
        ("HPC_DATABASE_URL", "garbage", "hpc"),
        ("HPC_REDIS_URL", "nonsense", "hpc"),
        ("HPC_JOB_CLASS", "no.such.Thing", "hpc"),
        ("HPC_CLUSTER_CHOOSER", "no.such", "files"),
        ("HPC_SECRET_KEYS", "short", "files"),
    ],
)
def test_a_bad_setting_is_named_in_one_sentence(
    tmp_path: Path, name: str, value: str, queues: str
) -> None:
    said = refusal(tmp_path, queues, **{name: value}).strip()
    assert name in said
    assert len(said.splitlines()) == 1, said


def test_an_attached_daemon_lives_with_its_link(stack: Stack) -> None:
    stack.start_worker()
    cluster = stack.add_cluster(mode=DaemonMode.ATTACHED)
    stack.wait_up(cluster)
    job = stack.submit(cluster, stack.script_until(stack.directory / "go"))
    stack.wait_status(job, JobStatus.RUNNING)
    stack.kill_daemon(cluster)
    (stack.directory / "go").touch()
    assert stack.wait_status(job).status is JobStatus.COMPLETED
    assert len(stack.runs()) == 1


def test_a_restored_database_goes_beyond_what_the_client_has_seen(stack: Stack) -> None:
    cluster = stack.add_cluster()
    ClusterLink.objects.filter(pk=cluster.pk).update(epoch=50, generation=50)
    worker = stack.start_worker()
    seen = stack.wait_up(cluster)
    stack.stop_worker(worker)
    ClusterLink.objects.filter(pk=cluster.pk).update(epoch=0, generation=0)
    stack.start_worker()
    stack.wait_up(cluster)
    restored = stack.link(cluster)
    assert restored.epoch > seen.epoch
    assert restored.generation == seen.generation
    stack.kill_daemon(cluster)
    stack.wait(lambda: stack.link(cluster).generation > seen.generation, "a newer generation")
    stack.wait_up(cluster)
    assert stack.wait_status(stack.submit(cluster)).status is JobStatus.COMPLETED


def test_a_restored_generation_is_raised_before_a_daemon_is_started(stack: Stack) -> None:
    cluster = stack.add_cluster()
    ClusterLink.objects.filter(pk=cluster.pk).update(generation=50)
    worker = stack.start_worker()
    seen = stack.wait_up(cluster)
    stack.stop_worker(worker)
    stack.kill_daemon(cluster)
    ClusterLink.objects.filter(pk=cluster.pk).update(epoch=0, generation=0)
    stack.start_worker({"HPC_RETRY_MIN_S": "100", "HPC_RETRY_MAX_S": "100"})
    stack.wait(
        lambda: stack.link(cluster).blocked_reason == "newer_generation", "the reason to be shown"
    )
    stack.wait(lambda: stack.holders() == [], "the lease to be released", 1.5)
    assert stack.link(cluster).generation == seen.generation
    clusters.connect(cluster)
    stack.wait_up(cluster)
    assert stack.link(cluster).generation > seen.generation


def test_a_copied_database_is_blocked(stack: Stack) -> None:
    cluster = stack.add_cluster()
    ClusterLink.objects.filter(pk=cluster.pk).update(instance_id="production")
    stack.start_worker()
    stack.wait(lambda: stack.link(cluster).blocked_reason == "copy", "the link to be blocked")
    assert stack.holders() == []


def test_bootstrap_starts_the_daemon_of_a_link_that_is_not_wanted(stack: Stack) -> None:
    stack.start_worker()
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    clusters.disconnect(cluster)
    stack.wait(lambda: stack.link(cluster).holder == "", "the link to be free")
    stack.client("stop", f"test.{cluster.pk}")
    before = stack.link(cluster).generation
    clusters.bootstrap(HpcCluster.objects.get(pk=cluster.pk))
    stack.wait(lambda: stack.link(cluster).generation > before, "a daemon to be started")
    stack.wait(lambda: stack.link(cluster).holder == "", "the link to be let go")
    assert '"pid"' in stack.client("status", f"test.{cluster.pk}", "--json")


def test_bad_settings_of_the_client_are_told_and_wait_for_a_person(stack: Stack) -> None:
    settings = stack.client_path / "settings" / "settings.py"
    settings.write_text("HPC_JOB_WORKING_DIRECTORY = 'relative'\n")
    stack.start_worker()
    cluster = stack.add_cluster()
    stack.wait(lambda: stack.link(cluster).state == "blocked", "the link to be blocked")
    link = stack.link(cluster)
    assert link.blocked_reason == "settings"
    assert "HPC_JOB_WORKING_DIRECTORY" in link.blocked_detail
    assert link.not_before is None
