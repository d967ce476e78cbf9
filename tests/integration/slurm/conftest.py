from __future__ import annotations

import contextlib
import itertools
import resource
import secrets
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster_client.engine import Engine
from cluster_client.environment import LoginEnvironment, account, minimal
from cluster_client.protocol import messages
from tests.integration.cluster_client.conftest import (
    EngineProcess,
    Recorder,
    Site,
    submit_of,
    wait_until,
)

QUICK = {"poll_interval_s": 0.5, "poll_interval_idle_s": 0.5}


def new_tag():
    """A tag that no other test has, since they share one accounting."""
    return "j" + "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(14))


class SlurmSite(Site):
    """A cluster account whose batch scheduler is the private Slurm."""

    def __init__(self, directory, server):
        super().__init__(directory)
        self.server = server

    def settings(self, generation=1, **changes):
        setup = f"export SLURM_CONF={self.server.layout.slurm_conf}"
        ours = {"scheduler": "slurm", "setup_commands": setup, **QUICK}
        return super().settings(generation, **{**ours, **changes})

    def login(self, path_before=""):
        made = {**minimal(account()), **self.server.environment}
        if path_before:
            made["PATH"] = f"{path_before}:{made['PATH']}"
        return LoginEnvironment(lambda: made)

    def start(self, path_before="", **changes):
        """An engine in this process."""
        settings = SimpleNamespace(**self.settings(**changes))
        recorder = Recorder(Engine(settings, login=self.login(path_before)))
        recorder.engine.start()
        return recorder

    def state_of(self, tag):
        """The states of all jobs of this name in the queue, as Slurm tells them."""
        argv = ("squeue", "-h", "--states=all", f"--name={tag}", "--format=%T")
        return self.server.command(*argv).split()

    def id_of(self, tag):
        argv = ("squeue", "-h", "--states=all", f"--name={tag}", "--format=%F")
        return self.server.command(*argv).split()[0]

    def submission(self, tag, body, **changes):
        return submit_of(tag, body, **changes)

    def claim_of(self, tag):
        return (self.jobs / tag / ".hpc" / "claim").read_text().split("\n")[0].rpartition(":")[2]

    @property
    def home(self):
        return account().home

    def clean(self):
        for path in self.jobs.glob("j*"):
            self.server.command("scancel", f"--name={path.name}", check=False)


@pytest.fixture(scope="session")
def early(slurm_server):
    """Jobs whose ends take long, submitted before all other tests: by name, (site, tag)."""
    with tempfile.TemporaryDirectory(prefix="hpc-t-", dir="/tmp") as directory:
        made = SlurmSite(Path(directory), slurm_server)
        recorder, jobs = made.start(), {name: new_tag() for name in EARLY}
        for name, body in EARLY.items():
            recorder.submit(jobs[name], body)
        for tag in jobs.values():
            recorder.wait(tag, "running")
        recorder.engine.stop()
        soon = time.strftime("%FT%T", time.gmtime(time.time() + 2))
        job = made.id_of(jobs["timeout"])
        slurm_server.command("scontrol", "update", f"jobid={job}", f"EndTime={soon}")
        yield SimpleNamespace(site=made, jobs=jobs)
        made.clean()


EARLY = {
    # Limits are looked after every 30 s; the end of this one is moved near, once it runs.
    "timeout": "#SBATCH --time=1\nsleep 300",
    # It gets the signal 50 s before its limit: when that is next looked after.
    "warned": "#SBATCH --time=1 --signal=B:USR1@50\ntrap 'exit 77' USR1\nsleep 300 & wait",
    # Nobody looks while it ends; then only the accounting knows it.
    "vanished": "sleep 2; exit 143",
}


@pytest.fixture
def site(slurm_server, early):
    with tempfile.TemporaryDirectory(prefix="hpc-t-", dir="/tmp") as directory:
        made = SlurmSite(Path(directory), slurm_server)
        yield made
        made.clean()


@pytest.fixture
def start_engine(site):
    """Start an engine in this process; all are stopped at the end."""
    started = []

    def start(**changes):
        started.append(site.start(**changes))
        return started[-1]

    yield start
    for recorder in started:
        recorder.engine.stop()


@pytest.fixture
def start_process(site):
    """Start an engine in a process of its own; all are ended at the end."""
    started = []

    def start(nofile=0, **changes):
        with limited_files(nofile):
            started.append(EngineProcess(sys.executable, site.settings(**changes)))
        return started[-1]

    yield start
    for process in started:
        if process.process.poll() is None or not process.process.stdout.closed:
            process.close()


@contextlib.contextmanager
def limited_files(number):
    """Let what is started in here open fewer files than we do."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def submit_until_answered(engine, tag, body, attempt, **changes):
    """As the server does: ask again with the next attempt until the answer is a clear one."""
    attempts = itertools.count(attempt)

    def ask():
        message = submit_of(tag, body, attempt=next(attempts), **changes)
        if isinstance(engine, Recorder):
            answer = engine.engine.handle(message)
            return answer if isinstance(answer, messages.Submitted) else None
        answer = engine.ask(message)
        return answer if answer["type"] == "Submitted" else None

    return wait_until(ask, what="a clear answer")
