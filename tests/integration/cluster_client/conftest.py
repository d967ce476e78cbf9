from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster_client import local_jobs
from cluster_client.engine import Engine
from cluster_client.environment import Login, LoginEnvironment, account, minimal
from cluster_client.protocol import messages
from tests import pythons

ROOT = Path(__file__).parents[3]
LIMIT_S = 30.0


def wait_until(condition, limit_s=LIMIT_S, what="the condition"):
    """The first true value of `condition`."""
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true in {limit_s} s"
        time.sleep(0.005)
    return value


def tag_of(number):
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    return "j" + "t" * 12 + letters[number // 32] + letters[number % 32]


def submit_of(tag, body, attempt=1, **changes):
    script = body if body.startswith("#!") else f"#!/bin/bash\n{body}\n"
    sha256 = hashlib.sha256(script.encode()).hexdigest()
    return messages.Submit(tag, attempt, script, sha256, **{"limit_s": 10.0, **changes})


class Site:
    """A cluster account of its own: directories, settings, and the jobs that run in it."""

    def __init__(self, directory):
        self.directory = directory
        self.jobs = directory / "jobs"
        self.state = directory / "state"
        self.hints = self.state / "hints"
        self.ledger = directory / "ledger"

    def settings(self, generation=1, **changes):
        return {
            "state_directory": str(self.state),
            "job_working_directory": str(self.jobs),
            "scheduler": "local",
            "poll_interval_s": 10.0,
            "poll_interval_idle_s": 30.0,
            "hint_interval_s": 0.2,
            "submit_parallel": 1,
            "command_limit_s": 60.0,
            "login_limit_s": 60.0,
            "lost_after_s": 86400.0,
            "fault_point": "",
            "umask": 0o077,
            "group": "",
            "setup_commands": "",
            "instance_id": "test",
            "cluster_id": 1,
            "generation": generation,
            **changes,
        }

    def ran(self):
        """The lines of the ledger: one for each time that a script really ran."""
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []

    def members(self):
        """Live processes of all jobs that hold a claim here."""
        found = []
        for path in self.jobs.glob("j*/.hpc/claim"):
            found += local_jobs.live_members(path.read_text().split("\n")[0])
        return found

    def clean(self):
        def is_clean():
            members = self.members()
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not members

        wait_until(is_clean, what="the end of all jobs")


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.clean()


class Recorder:
    """An engine in this process, with the events that it has told so far."""

    def __init__(self, engine):
        self.engine = engine
        self.events = []

    def submit(self, tag, body, **changes):
        return self.engine.handle(submit_of(tag, body, **changes))

    def read(self):
        after = self.events[-1].seq if self.events else self.engine._store.first_seq - 1
        self.events += self.engine.events_after(after)
        return self.events

    def of(self, tag):
        return [(event.kind, event.data) for event in self.read() if event.tag == tag]

    def wait(self, tag, kind="ended", limit_s=LIMIT_S):
        """The data of the first event of this kind."""

        def find():
            return next(((data,) for word, data in self.of(tag) if word == kind), None)

        return wait_until(find, limit_s, f"{kind} of {tag}")[0]


@pytest.fixture
def start_engine(site):
    """Start an engine in this process; all are stopped at the end."""
    started = []

    def start(fs=None, login=None, **changes):
        settings = SimpleNamespace(**site.settings(**changes))
        if login is None:
            login = LoginEnvironment(lambda: Login(minimal(account())))
        recorder = Recorder(Engine(settings, login=login or None, fs=fs))
        recorder.engine.start()
        started.append(recorder.engine)
        return recorder

    yield start
    for engine in started:
        engine.stop()


class EngineProcess:
    """An engine that can be killed."""

    def __init__(self, python, settings, prefix=()):
        self._number = 0
        self._answers = {}
        self.process = subprocess.Popen(
            [
                *prefix,
                python,
                str(Path(__file__).with_name("engine_process.py")),
                json.dumps(settings),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": "/", "PYTHONPATH": str(ROOT)},
            text=True,
        )
        assert self._receive() == [0, "ready"], self.process.stderr.read()

    def _receive(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def send(self, request):
        self._number += 1
        if not isinstance(request, dict):
            request = {"type": type(request).__name__, **request.__dict__}
            request.pop("resources", None)
        self.process.stdin.write(json.dumps([self._number, request]) + "\n")
        self.process.stdin.flush()
        return self._number

    def wait_for(self, number):
        """The answer to that request; None if the process died first."""
        while number not in self._answers:
            received = self._receive()
            if received is None:
                return None
            self._answers[received[0]] = received[1]
        return self._answers.pop(number)

    def ask(self, request):
        return self.wait_for(self.send(request))

    def events(self):
        return [(e["tag"], e["kind"], e["data"]) for e in self.ask({"type": "events", "after": 0})]

    def wait(self, tag, kind="ended", limit_s=LIMIT_S):
        def find():
            return next(((d,) for t, k, d in self.events() if (t, k) == (tag, kind)), None)

        return wait_until(find, limit_s, f"{kind} of {tag}")[0]

    def kill(self):
        self.process.kill()
        self.close()

    def close(self):
        if not self.process.stdin.closed:
            self.process.stdin.close()
        self.process.wait(LIMIT_S)
        self.process.stdout.close()
        self.log = self.process.stderr.read()
        self.process.stderr.close()


@pytest.fixture(params=["oldest", "newest"])
def python(request):
    """The oldest and the newest interpreter of this run, without any package."""
    known = pythons.interpreters()
    return str(known[0 if request.param == "oldest" else -1].path)


@pytest.fixture
def start_process(site):
    """Start an engine in a process of its own; all are ended at the end."""
    started = []

    def start(python=sys.executable, prefix=(), **changes):
        started.append(EngineProcess(python, site.settings(**changes), prefix))
        return started[-1]

    yield start
    for process in started:
        if process.process.poll() is None or not process.process.stdout.closed:
            process.close()
