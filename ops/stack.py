"""The stack on one machine: Redis, web, worker, files worker and Flower, as one whole."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ops import environment, errors, interruption, leftovers, orphans, processes, services

CHECKOUT = Path(__file__).parent.parent
READY_LIMIT_S = 60.0
COMMAND_LIMIT_S = 120.0
STOP_LIMIT_S = 20.0
STEP_S = 0.1
PORT_ATTEMPTS = 3
# A browser that holds a connection open does not keep the web process from ending.
GRACE = ("--timeout-graceful-shutdown", "5")
# Of a generated name, so that there is room for names below it in a socket's path.
TEMPORARY_PATH_LIMIT = 60
NOT_COPIED = shutil.ignore_patterns("__pycache__", "venv", "state", "log", "jobs", "settings.py")
CLIENT_SETTINGS = """\
# The settings of this installation of the cluster client; what can be set is described in
# {original}
HPC_DAEMON_PID_FILE = {pid_file!r}
"""


def say(sentence: str) -> None:
    """Tell the person in front of the terminal; a reader who went away is no reason to fail."""
    try:
        print(sentence, flush=True)
    except BrokenPipeError:
        # From now on nobody reads: neither this nor the interpreter's last flush shall fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        os.kill(os.getpid(), signal.SIGHUP)


def temporary_directory(prefix: str) -> Path:
    """A fresh private directory whose path is short enough for the sockets in it."""
    base = tempfile.gettempdir()
    return Path(
        tempfile.mkdtemp(prefix=prefix, dir=base if len(base) < TEMPORARY_PATH_LIMIT else "/tmp")
    )


@dataclass
class Program:
    """One of the programs of the stack; with a port if it listens."""

    name: str
    argv: tuple[str, ...]
    preferred_port: int | None = None
    port: int = 0
    child: processes.Child | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it was started and is over."""
        return self.child is not None and self.child.has_ended

    @property
    def is_ready(self) -> bool:
        """Whether it answers, for those that listen."""
        if not self.port:
            return True
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/")
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return True

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://127.0.0.1:{self.port}/"


def programs(web_port: int, flower_port: int) -> list[Program]:
    """What the stack consists of besides Redis; a port of 0 stands for any free one."""
    celery = ("celery", "-A", "workers")
    worker = (*celery, "worker", "-P", "threads", "-E", "--loglevel", "INFO")
    return [
        Program("web", ("uvicorn", "controller.project.asgi:application", *GRACE), web_port),
        Program("worker", (*worker, "-Q", "hpc", "-c", "12", "-n", f"hpc-{os.getpid()}@%h")),
        Program("files", (*worker, "-Q", "files", "-n", f"files-{os.getpid()}@%h")),
        Program("flower", (*celery, "flower", "--conf=ops/flowerconfig.py"), flower_port),
    ]


class Stack:
    """The processes of one stack, its state in `state`, its sockets in `sockets`."""

    def __init__(
        self,
        state: Path,
        sockets: Path,
        own: dict[str, str],
        parts: list[Program],
        interruption: interruption.Interruption,
    ) -> None:
        self.state = state
        self.client_path = state / "cluster_client"
        self.log_directory = state / "log"
        self.parts = parts
        self.mark = f"HPC_STACK_ID={uuid.uuid4()}"
        self._interruption = interruption
        self._redis = services.Redis(sockets, pause=interruption.pause)
        self._own = own | {
            "HPC_DATA_DIRECTORY": str(state),
            "HPC_REDIS_URL": self._redis.url,
            "HPC_ALLOW_LOCAL_CARRIER": "1",
        }
        self._own.pop("HPC_ALLOW_ROOT", None)
        if os.geteuid() == 0:
            self._own["HPC_ALLOW_ROOT"] = "1"
        self._command: processes.Child | None = None

    @property
    def own_environment(self) -> dict[str, str]:
        """What someone needs in the environment to work with this stack from the command line."""
        return dict(self._own)

    def part(self, name: str) -> Program:
        """One of the programs, by name."""
        return next(part for part in self.parts if part.name == name)

    def start(self) -> None:
        """Start everything and wait until it answers."""
        self.log_directory.mkdir(mode=0o700, exist_ok=True)
        environment.write(self.state / "env", self._own)
        self._install_client()
        self._redis.start()
        self.manage("migrate", "--verbosity", "0")
        for part in self.parts:
            self.start_part(part)
        for part in self.parts:
            self._wait_for(part)

    def start_part(self, part: Program) -> None:
        """Start one program, on its port or a free one if it listens."""
        arguments: tuple[str, ...] = ()
        if part.preferred_port is not None:
            part.port = processes.free_port(part.port or part.preferred_port)
            arguments = (f"--port={part.port}",)
        part.child = processes.start(
            part.name,
            [sys.executable, "-m", *part.argv, *arguments],
            environment=self._environment(),
            directory=CHECKOUT,
            log=self.log_directory / f"{part.name}.log",
        )

    def restart_redis_if_ended(self) -> bool:
        """Start Redis again if it has ended; return whether it had."""
        if self._redis.child and not self._redis.child.has_ended:
            return False
        self._redis.stop()
        self._redis.start()
        return True

    def check(self) -> None:
        """Raise NotStarted if one of the programs has ended."""
        for part in self.parts:
            if part.has_ended:
                log = self.log_directory / f"{part.name}.log"
                raise errors.NotStarted(f"{part.name} has ended: {services.last_lines(log)}")

    def run(self, *arguments: str, is_shown: bool = False) -> str:
        """Run a Python module of the checkout; return its output, or let it go where ours goes."""
        name = " ".join(arguments[:4])
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
            self._command = processes.start(
                name,
                [sys.executable, "-m", *arguments],
                environment=self._environment(),
                directory=CHECKOUT,
                output=None if is_shown else output,
                complaints=complaints,
            )
            is_over = self._wait(self._is_command_over, COMMAND_LIMIT_S)
            if is_over and not self._command.has_ended:
                self.check()
            status = self._command.collect()
            self._command = None
            if status == 0 and is_over:
                output.seek(0)
                return output.read().decode(errors="replace").rstrip()
            complaints.seek(0)
            reason = complaints.read().decode(errors="replace").strip() or "it said no more"
        if not is_over:
            raise errors.NotStarted(f"{name} did not end within {COMMAND_LIMIT_S:.0f} s: {reason}")
        raise errors.OpsError(f"{name} failed with exit status {status}: {reason}")

    def manage(self, *arguments: str, is_shown: bool = False) -> str:
        """Run a command of `manage.py` in the same way."""
        return self.run("manage", *arguments, is_shown=is_shown)

    def _is_command_over(self) -> bool:
        """Whether the command has ended, or can't go on because a part of the stack has."""
        is_over = self._command is None or self._command.has_ended
        return is_over or any(part.has_ended for part in self.parts)

    def stop(self, with_jobs: bool) -> list[str]:
        """Stop everything, also what had detached itself; return what could not be stopped.

        Jobs that still run are ended `with_jobs`, and otherwise go on, as they do on a cluster.
        """
        self._interruption.begin_stopping()
        children = [part.child for part in self.parts if part.child]
        if self._command:
            children.append(self._command)
        self._stop(children)
        self._stop_daemons()
        belongings = leftovers.Belongings(self.mark, self.client_path, with_jobs)
        others = orphans.adopted if with_jobs else list[int]
        left = leftovers.end(belongings, self._interruption.pause, others)
        self._redis.stop()
        return left

    def _stop(self, children: list[processes.Child]) -> None:
        processes.stop(
            *children,
            limit_s=STOP_LIMIT_S,
            pause=self._interruption.pause,
            is_urgent=lambda: self._interruption.is_urgent,
        )

    def _stop_daemons(self) -> None:
        """Ask the daemons of the cluster client to retire; they would work on without us."""
        client = self.client_path / "client.py"
        children = [
            processes.start(
                f"stop {key.name}",
                [sys.executable, client, "stop", key.name],
                environment=self._environment(),
                log=self.log_directory / "stop.log",
            )
            for key in sorted((self.client_path / "state").glob("*.*"))
            if key.is_dir()
        ]
        processes.wait_until(
            lambda: all(child.has_ended for child in children) or self._interruption.is_urgent,
            STOP_LIMIT_S,
            self._interruption.pause,
        )
        for child in children:
            child.collect()

    def _install_client(self) -> None:
        """Install the cluster client as one does by hand: its directory, and settings if none."""
        original = CHECKOUT / "cluster_client"
        shutil.copytree(original, self.client_path, ignore=NOT_COPIED, dirs_exist_ok=True)
        path = Path("settings", "settings.py")
        if not (self.client_path / path).exists():
            pid_file = str(self.state / "daemon.pid")
            with open(self.client_path / path, "w", opener=services.private_file) as file:
                file.write(CLIENT_SETTINGS.format(original=original / path, pid_file=pid_file))

    def _environment(self) -> dict[str, str]:
        name, _, value = self.mark.partition("=")
        return environment.of_children(os.environ, {**self._own, name: value})

    def _wait_for(self, part: Program) -> None:
        for _ in range(PORT_ATTEMPTS):
            if self._wait(lambda: part.has_ended or part.is_ready) and not part.has_ended:
                return
            # Its port may have been taken in between; anything else fails the next time as well.
            if part.child is None or not part.has_ended or not part.port:
                break
            part.child.collect()
            self.start_part(part)
        self.check()
        raise errors.NotStarted(f"{part.name} did not answer within {READY_LIMIT_S:.0f} s.")

    def _wait(self, is_met: Callable[[], bool], limit_s: float = READY_LIMIT_S) -> bool:
        return processes.wait_until(is_met, limit_s, self._interruption.pause, STEP_S)
