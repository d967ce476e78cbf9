"""A foreign project adds the app: its own user model, settings, tests, Celery app and jobs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops import environment, leftovers, processes

PROJECT = Path(__file__).with_name("project")
NOT_INSTALLED = shutil.ignore_patterns("__pycache__", "state", "jobs", "log", "venv")
LIMIT_S = 90
Manage = Callable[..., str]
pytestmark = pytest.mark.timeout(300)  # a dozen commands, each of which starts Django


@pytest.fixture
def variables(short_directory: Path, redis_url: str, checkout: Path) -> dict[str, str]:
    """The portal's environment: none of our own project's variables is in it."""
    own = {
        "DJANGO_SETTINGS_MODULE": "observatory.settings",
        "OBSERVATORY_DATABASE": str(short_directory / "observatory.sqlite3"),
        "OBSERVATORY_REDIS": redis_url,
        "PYTHONPATH": str(checkout),  # as if installed with pip
        "HPC_TEST_STACK": short_directory.name,
    }
    return environment.of_children(os.environ, own)


@pytest.fixture
def manage(variables: dict[str, str]) -> Manage:
    """Runs the portal's own manage.py; returns what it prints on stdout."""

    def run(*words: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=PROJECT,
            env=variables,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def client_path(short_directory: Path, checkout: Path) -> Path:
    """An installed cluster client."""
    path = short_directory / "cluster_client"
    shutil.copytree(checkout / "cluster_client", path, ignore=NOT_INSTALLED)
    return path


@pytest.fixture
def worker(
    variables: dict[str, str], short_directory: Path, client_path: Path, manage: Manage
) -> Iterator[processes.Child]:
    """The portal's one worker: its own tasks, ours, and files."""
    manage("migrate", "-v0")
    child = processes.start(
        "worker",
        [
            *(sys.executable, "-m", "celery", "-A", "observatory", "worker", "--without-mingle"),
            *("-Q", "celery,hpc,files", "-P", "threads", "-c", "6", "--loglevel", "INFO"),
        ],
        environment=variables,
        directory=PROJECT,
        log=short_directory / "worker.log",
    )
    yield child
    processes.stop(child, limit_s=15.0)
    mark = f"HPC_TEST_STACK={short_directory.name}"
    belongings = leftovers.Belongings(mark, client_path, with_jobs=True)
    leftovers.end(belongings, time.sleep)


def test_the_portals_own_tests_checks_and_migrations_stay_its_own(manage: Manage) -> None:
    manage("test", "--verbosity", "0")
    manage("check", "--fail-level", "WARNING")
    manage("makemigrations", "--check", "--dry-run")


@pytest.mark.usefixtures("worker")
def test_one_worker_runs_the_portals_task_and_its_job_to_the_end(
    manage: Manage, client_path: Path, short_directory: Path
) -> None:
    words = ("hpc", "cluster", "add", "dark-site", "--host", "localhost", "--connect")
    manage(*words, "--client-path", str(client_path), "--python", sys.executable)
    told = json.loads(manage("survey"))
    assert (told["status"], told["stars"]) == ("PENDING", 2000)
    job_id = str(told["id"])
    states = manage("hpc", "job", "wait", job_id, "--limit", "60")
    assert states.endswith(f"job {job_id}: Completed, exit code 0\n")
    assert manage("hpc", "job", "output", job_id) == "M31 1\nM31 2\nM31 3\n"
    (job,) = json.loads(manage("hpc", "job", "list", "--json"))
    assert (job["cluster"], job["owner"], job["status"]) == (
        "dark-site", "ada@example.org", "COMPLETED",
    )  # fmt: skip
    notices = manage(
        "shell", "-v0", "-c", "from surveys.models import *; print(*Notice.objects.all())"
    )
    assert notices.startswith("M31 is Pending M31 is Submitting")
    assert notices.endswith("M31 is Completed\n")
    assert manage("hpc", "job", "delete", job_id) == f"job {job_id}: Deleting\n"
    processes.wait_until(
        lambda: json.loads(manage("hpc", "job", "show", job_id, "--json"))["status"] == "DELETED",
        30,
    )
    assert list((client_path / "jobs").glob("j*")) == []
