"""A stack of real parts for one test: database, Redis, worker processes, a cluster client, jobs.

The test's own process works on the stack's database and broker with the project's services, as a
portal's web process would. Everything is stopped by pid, and nothing stays behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import dj_database_url
from django.db import connections

from controller import conf, publish
from controller.lifecycle import FINAL, JobStatus
from controller.models import ClusterLink, HpcCluster, HpcJob, Worker
from controller.project.celery import app
from controller.services import clusters, jobs
from ops import environment, leftovers, processes, services
from tests import tables

CHECKOUT = Path(__file__).parent.parent
LIMIT_S = 40.0
NOT_INSTALLED = shutil.ignore_patterns("__pycache__", "state", "jobs", "log", "venv")

QUICK = {
    "HPC_LEASE_TTL_S": "3",
    "HPC_LEASE_RENEW_S": "0.8",
    "HPC_LEASE_MUTE_S": "2.1",
    "HPC_KEEPER_INTERVAL_S": "0.3",
    "HPC_SWEEP_INTERVAL_S": "1",
    "HPC_RELEASE_INTERVAL_S": "0.5",
    "HPC_SUBMITTING_STALE_S": "3",
    "HPC_CANCELLING_STALE_S": "3",
    "HPC_PING_INTERVAL_S": "1",
    "HPC_PING_DEADLINE_S": "5",
    "HPC_REQUEST_DEADLINE_S": "10",
    "HPC_SUBMIT_LIMIT_S": "10",
    "HPC_POLL_INTERVAL_S": "0.5",
    "HPC_RETRY_MIN_S": "0.3",
    "HPC_RETRY_MAX_S": "2",
}
"""Intervals for tests: in the proportions of the defaults, a few times shorter."""


class Stack:
    """Starts and stops the parts; `client_path` is the installed cluster client."""

    def __init__(
        self,
        directory: Path,
        redis: services.Redis,
        database_url: str,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.redis = redis
        self.database_url = database_url
        self.client_path = directory / "cluster_client"
        self.ledger = directory / "ledger"
        self.workers: list[processes.Child] = []
        self.mark = f"HPC_TEST_STACK={directory.name}"
        self._settings = {**QUICK, **(settings or {})}

    # Life ---------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Install the cluster client and make the tables."""
        shutil.copytree(CHECKOUT / "cluster_client", self.client_path, ignore=NOT_INSTALLED)
        tables.make()

    def close(self) -> list[str]:
        """Stop everything; what could not be stopped."""
        for child in self.workers:
            child.send(signal.SIGCONT)
        processes.stop(*self.workers, limit_s=10.0)
        belongings = leftovers.Belongings(self.mark, self.client_path, with_jobs=True)
        return leftovers.end(belongings, time.sleep)

    # Workers ------------------------------------------------------------------------------------

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """What the processes of this stack get."""
        name, _, value = self.mark.partition("=")
        own = {
            "DJANGO_SECRET_KEY": os.environ["DJANGO_SECRET_KEY"],
            "HPC_SECRET_KEYS": os.environ["HPC_SECRET_KEYS"],
            "HPC_INSTANCE_ID": os.environ["HPC_INSTANCE_ID"],
            "HPC_DATA_DIRECTORY": str(self.directory),
            "HPC_DATABASE_URL": self.database_url,
            "HPC_REDIS_URL": self.redis.url,
            "HPC_ALLOW_LOCAL_CARRIER": "1",
            "HPC_ALLOW_ROOT": os.environ.get("HPC_ALLOW_ROOT", "0"),
            name: value,
            **self._settings,
            **(extra or {}),
        }
        return environment.of_children(os.environ, own)

    def start_worker(
        self,
        extra: Mapping[str, str] | None = None,
        queues: str = "hpc",
        around: Callable[[list[str]], Sequence[str | Path]] = lambda argv: argv,
    ) -> processes.Child:
        """A worker process of its own name; it may still be starting.

        `around` may give it an environment of another kind, as sshd.Accounts.around does.
        """
        number = len(self.workers) + 1
        child = processes.start(
            f"worker{number}",
            around(
                [
                    *(sys.executable, "-m", "celery", "-A", "workers", "worker"),
                    *("-Q", queues, "-P", "threads", "-E", "--loglevel", "INFO"),
                    *(() if queues == "files" else ("-c", "6")),
                    *("-n", f"w{number}-{os.getpid()}@localhost", "--without-mingle"),
                ]
            ),
            environment=self.environment(extra),
            directory=CHECKOUT,
            log=self.log_of(number),
        )
        self.workers.append(child)
        return child

    def start_with_fault(self, point: str) -> tuple[processes.Child, Path]:
        """A worker that kills (or with `/stop` freezes) itself there, once; and its marker."""
        marker = self.marker_of(point)
        return self.start_worker(self.armed(point)), marker

    def armed(self, *points: str) -> dict[str, str]:
        """The environment of a process that dies at the first of `points` that nobody died at."""
        value = ",".join(f"{point}:{self.marker_of(point)}" for point in points)
        return {"HPC_ALLOW_FAULT_POINTS": "1", "HPC_FAULT_POINT": value}

    def marker_of(self, point: str) -> Path:
        """What the process that dies at `point` leaves behind."""
        return self.directory / f"fault-{point.replace('/', '-')}"

    def dead_workers(self) -> int:
        """How many of the workers that were started have ended."""
        return sum(child.has_ended for child in self.workers)

    def log_of(self, number: int) -> Path:
        return self.directory / f"worker{number}.log"

    def stop_worker(self, child: processes.Child, limit_s: float = 10.0) -> float:
        """Ask a worker to end, as a service manager does; how long it took."""
        begun_at = time.monotonic()
        child.send(signal.SIGTERM)
        self.wait(lambda: child.has_ended, f"{child.name} to end", limit_s)
        return time.monotonic() - begun_at

    # Clusters and jobs --------------------------------------------------------------------------

    def add_cluster(self, name: str = "local", **fields: Any) -> HpcCluster:
        """A cluster that is this very machine, and whose link is wanted."""
        cluster = clusters.register(
            name=name,
            **{
                "host_name": "localhost",
                "carrier": "local",
                "scheduler": "local",
                "client_path": str(self.client_path),
                "python": sys.executable,
                **fields,
            },
        )
        clusters.connect(cluster)
        return cluster

    def wait_up(self, cluster: HpcCluster, limit_s: float = LIMIT_S) -> ClusterLink:
        """Wait until the link is up."""
        self.wait(lambda: self.link(cluster).state == "up", "the link to come up", limit_s)
        return self.link(cluster)

    def link(self, cluster: HpcCluster) -> ClusterLink:
        return ClusterLink.objects.get(pk=cluster.pk)

    def kill_daemon(self, cluster: HpcCluster) -> None:
        """kill -9 of the daemon that serves the cluster."""
        pid = self.link(cluster).daemon_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def freeze(self, worker: processes.Child) -> None:
        """Stop a worker at a moment at which it holds no lock that all others need.

        One that is stopped within a write to SQLite holds the whole database.
        """

        def is_frozen() -> bool:
            worker.send(signal.SIGSTOP)
            if self._is_writable():
                return True
            worker.send(signal.SIGCONT)
            return False

        self.wait(is_frozen, "a moment to freeze the worker")

    def _is_writable(self) -> bool:
        if not self.database_url.startswith("sqlite:"):
            return True
        name = dj_database_url.parse(self.database_url)["NAME"]
        with closing(sqlite3.connect(name, timeout=0.2)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            connection.rollback()
        return True

    @contextmanager
    def frozen(self, pid: int) -> Iterator[None]:
        """A process stopped for a while."""
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def script(self, seconds: float = 0.0, status: int = 0) -> str:
        """A job's script that writes a ledger line when it really runs."""
        return (
            f"#!/bin/sh\necho ran $PWD >> {self.ledger}\necho hello\n"
            f"sleep {seconds}\nexit {status}\n"
        )

    def script_until(self, path: Path) -> str:
        """A job's script that runs until `path` is there."""
        return (
            f"#!/bin/sh\necho ran $PWD >> {self.ledger}\nuntil [ -e {path} ]; do sleep 0.1; done\n"
        )

    def submit(self, cluster: HpcCluster, script: str = "", **fields: Any) -> HpcJob:
        """A new job, submitted."""
        job = HpcJob.objects.create(cluster=cluster, **fields)
        jobs.submit(job, {"script": script or self.script()})
        return job

    def wait_status(self, job: HpcJob, *statuses: JobStatus, limit_s: float = LIMIT_S) -> HpcJob:
        """Wait until the job has one of the statuses (default: any end)."""
        wanted = statuses or tuple(FINAL)

        def is_there() -> bool:
            job.refresh_from_db()
            return job.status in wanted

        self.wait(is_there, f"{job} to be {[status.name for status in wanted]}", limit_s)
        return job

    def is_over(self, job: HpcJob) -> bool:
        """Whether the job has ended."""
        job.refresh_from_db()
        return job.is_final

    def runs(self) -> list[str]:
        """The ledger: one line for each time that a script really ran."""
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []

    def runs_of(self, job: HpcJob) -> list[str]:
        """The ledger's lines of one job."""
        return [line for line in self.runs() if line.endswith("/" + job.tag)]

    def holders(self) -> list[str]:
        """Who holds a link now."""
        return sorted(ClusterLink.objects.exclude(holder="").values_list("holder", flat=True))

    def live_workers(self) -> int:
        return Worker.objects.count()

    def client(self, *arguments: str) -> str:
        """Run `client.py` by hand; its output."""
        finished = subprocess.run(
            [sys.executable, str(self.client_path / "client.py"), *arguments],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return finished.stdout + finished.stderr

    # Waiting ------------------------------------------------------------------------------------

    def wait(self, is_met: Callable[[], bool], what: str, limit_s: float = LIMIT_S) -> None:
        """Wait for a condition; fail with the workers' last words."""
        if not processes.wait_until(is_met, limit_s, step_s=0.05):
            raise AssertionError(f"Waited {limit_s:g} s for {what}.\n{self.last_words()}")

    def last_words(self) -> str:
        """The tails of the workers' and the daemons' logs."""
        logs = [self.log_of(number) for number in range(1, len(self.workers) + 1)]
        logs += sorted((self.client_path / "log").glob("*.log"))
        rows = [str(row) for row in ClusterLink.objects.values()] + [
            str(row) for row in HpcJob.objects.values("pk", "job_status", "blocked_detail")
        ]
        tails = [f"--- {log.name}\n{services.last_lines(log, 40)}" for log in logs]
        return "\n".join([*rows, *tails])


@contextmanager
def database(url: str) -> Iterator[None]:
    """The test's own process on the stack's database; what it was on before afterwards."""
    connection = connections["default"]
    connection.close()
    kept = dict(connection.settings_dict)
    parsed: dict[str, Any] = {"OPTIONS": {}, **dj_database_url.parse(url)}
    if "sqlite" in parsed["ENGINE"]:
        parsed["OPTIONS"] = {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        }
    changed = {**kept, **parsed}
    _point_to(changed)
    try:
        yield
    finally:
        _point_to(kept)


def _point_to(settings: dict[str, Any]) -> None:
    connections["default"].close()
    connections.settings["default"] = settings
    del connections["default"]


def reconnect() -> None:
    """Let go of a connection that an outage has broken."""
    connections["default"].close()


@contextmanager
def broker(url: str) -> Iterator[None]:
    """The test's own process publishes to the stack's Redis."""
    kept = app.conf.broker_url
    _publish_to(url)
    try:
        yield
    finally:
        _publish_to(kept)


def _publish_to(url: str) -> None:
    app.pool.force_close_all()
    app._pool = None
    app.amqp._producer_pool = None
    app.conf.broker_url = app.conf.result_backend = url
    app._backend_cache = None
    app._local.__dict__.pop("backend", None)
    app.set_current()
    publish._paused_until = 0.0  # another broker, that another test found away


@contextmanager
def running(
    directory: Path,
    redis: services.Redis,
    database_url: str,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Stack]:
    """A stack, prepared; stopped at the end, and nothing left."""
    with database(database_url), broker(redis.url):
        stack = Stack(directory, redis, database_url, settings)
        conf.get.cache_clear()
        stack.prepare()
        try:
            yield stack
        finally:
            left = stack.close()
    assert not left, f"left behind: {left}"
