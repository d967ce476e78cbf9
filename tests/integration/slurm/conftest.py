from __future__ import annotations

import contextlib
import itertools
import secrets
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster_client import accountant
from cluster_client.engine import Engine
from cluster_client.environment import Login, LoginEnvironment, account, minimal
from cluster_client.protocol import messages
from ops import processes, slurm
from tests.integration.cluster_client.conftest import (
    LIMIT_S,
    EngineProcess,
    Recorder,
    Site,
    submit_of,
    wait_until,
)

from .crowd import FAILS, JOBS

PARALLEL = 6
CLEAN_LIMIT_S = 15.0
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
        return LoginEnvironment(lambda: Login(made))

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
        """End the jobs, and wait until none of them writes into its directory any more."""
        tags = [path.name for path in self.jobs.glob("j*")]
        for tag in tags:
            self.server.command("scancel", f"--name={tag}", check=False)
        if not tags:
            return
        busy = ("squeue", "-h", f"--name={','.join(tags)}", "-t", "R,CG,S", "-o", "%A")
        processes.wait_until(lambda: not self.server.command(*busy, check=False), CLEAN_LIMIT_S)


@pytest.fixture(scope="session", autouse=True)
def head_start(request):
    """What takes long begins before the first test, if any test is about it."""
    asked = {name for item in request.session.items for name in item.fixturenames}
    for name in ("outage", "vanished", "crowd"):
        if name in asked:
            request.getfixturevalue(name)


@pytest.fixture(scope="session")
def crowd(slurm_server):
    """The jobs of many tests, submitted at once: one waits for all, the others find them ended."""
    with running_site(slurm_server) as made:
        recorder = made.start(submit_parallel=PARALLEL)
        yield Crowd(made, recorder)
        recorder.engine.stop()


@pytest.fixture(scope="session")
def vanished(slurm_server):
    """A job that ends and leaves the queue while nobody looks: (site, tag)."""
    with running_site(slurm_server) as made:
        recorder, tag = made.start(), new_tag()
        recorder.submit(tag, "sleep 2; exit 143")
        recorder.engine.stop()
        yield made, tag


@pytest.fixture(scope="session")
def outage(service_directory):
    """A Slurm without accounting whose controller went down while a job ran, and one waited."""
    server = slurm.Slurm(service_directory / "outage", nodes=1, with_accounting=False)
    server.start()
    with running_site(server) as made:
        begun = Outage(made)
        yield begun
        begun.answer()
        begun.recorder.engine.stop()
    server.stop()


@pytest.fixture(scope="session")
def unaccounted(slurm_server):
    """Jobs that ended while slurmdbd was down: `late` hears of their accounting in its own time."""
    with running_site(slurm_server) as made, pytest.MonkeyPatch.context() as patch:
        patch.setattr(accountant, "_FIRST_REST_S", 0.5)
        slurm_server.stop_accounting()
        late = made.start()
        told = SimpleNamespace(late=late, good=new_tag(), bad=new_tag(), site=made)
        late.submit(told.good, "sleep 0.5")
        late.submit(told.bad, "sleep 0.5; exit 143")
        told.look_up = late.submit(new_tag(), f"echo ran >>{made.ledger}", attempt=2)
        told.ends = {tag: late.wait(tag) for tag in (told.good, told.bad)}
        told.kinds = [event.kind for event in late.read()]
        slurm_server.start_accounting()
        yield told
        late.engine.stop()


@pytest.fixture
def site(slurm_server):
    with running_site(slurm_server) as made:
        yield made


@contextlib.contextmanager
def running_site(server):
    with tempfile.TemporaryDirectory(prefix="hpc-t-", dir="/tmp") as directory:
        made = SlurmSite(Path(directory), server)
        yield made
        made.clean()


class Crowd:
    """Jobs by name: those of crowd.JOBS, and who can't start because `exit 1` failed."""

    def __init__(self, site, recorder):
        self.site, self.recorder, self.server = site, recorder, site.server
        self.tags, self.ids = {}, {}
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(self._submit, JOBS))
        failed = self.ids[f"end of: {FAILS}"]
        self._submit("never", f"#SBATCH --dependency=afterok:{failed}\ntrue")
        self.wait("at its limit", "running")
        soon = time.strftime("%FT%T", time.gmtime(time.time() + 2))
        job = f"jobid={self.ids['at its limit']}"
        self.server.command("scontrol", "update", job, f"EndTime={soon}")

    def _submit(self, name, body=""):
        known, resources = JOBS.get(name, ("", messages.Resources()))
        tag = self.tags[name] = new_tag()
        answer = self.recorder.submit(tag, body or known, resources=resources, limit_s=LIMIT_S)
        assert isinstance(answer, messages.Submitted), f"{name}: {answer}"
        self.ids[name] = answer.scheduler_job_id

    def wait(self, name, kind="ended", limit_s=LIMIT_S):
        return self.recorder.wait(self.tags[name], kind, limit_s)

    def of(self, name):
        return self.recorder.of(self.tags[name])

    def cancel(self, name):
        return self.recorder.engine.handle(messages.Cancel(self.tags[name]))

    def directory(self, name):
        return self.site.jobs / self.tags[name]


class Outage:
    """`down_since` is a monotonic time; an engine goes on asking all the while."""

    def __init__(self, site):
        self.site, self.runs, self.waits = site, new_tag(), new_tag()
        # A minute of failures must not stretch its pauses beyond what the test can wait.
        self.recorder = site.start(poll_interval_s=0.1)
        self.line = line = f"echo ran >>{site.ledger}"
        is_down = site.directory / "controller-is-down"
        body = f"{line}; until test -e {is_down}; do sleep 0.2; done; exit 7"
        self.recorder.submit(self.runs, body)
        answer = self.recorder.submit(self.waits, f"#SBATCH --hold\n{line}")
        self.waiting_id = answer.scheduler_job_id
        self.recorder.wait(self.runs, "running")
        self.recorder.wait(self.waits, "queued")
        site.server.stop_controller()
        is_down.touch()
        self.down_since = time.monotonic()
        self.late = new_tag()
        self._asked = ThreadPoolExecutor(1).submit(self.recorder.submit, self.late, line)

    def answer(self):
        """To a submission of `late` while the controller was down, which takes a while."""
        return self._asked.result(LIMIT_S)


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

    def start(**changes):
        started.append(EngineProcess(sys.executable, site.settings(**changes)))
        return started[-1]

    yield start
    for process in started:
        if process.process.poll() is None or not process.process.stdout.closed:
            process.close()


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
