"""Child processes that end with their parent, free ports, and waits that have a limit."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

LAUNCHER = Path(__file__).with_name("child.py")
STOP_LIMIT_S = 10.0
PAUSE_S = 0.02

Pause = Callable[[float], object]

# The numbers of the programs that were started here and not yet collected.
running: set[int] = set()


@dataclass
class Child:
    """A program in a session and process group of its own."""

    name: str
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """The number of the process, which is that of its group as well."""
        return self.process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the program has ended; its number stays taken until `collect`."""
        if self.process.returncode is not None:
            return True
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, flags) is not None

    def send(self, number: int) -> None:
        """Send a signal to the whole group, unless the program was collected already."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def collect(self) -> int:
        """Kill what is left of the group and return the exit status, as `Popen` tells it."""
        self.send(signal.SIGKILL)
        status = self.process.wait()
        running.discard(self.pid)
        return status


def start(
    name: str,
    argv: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    log: Path | None = None,
    output: IO[bytes] | int | None = None,
    complaints: IO[bytes] | int | None = subprocess.STDOUT,
    user: str = "",
    death_signal: int = signal.SIGKILL,
) -> Child:
    """Start a program that dies with the thread that calls this.

    Its output is appended to `log`, or goes to `output`, or where ours goes; with it go its
    `complaints`, unless they have a place of their own. Only the superuser may name another `user`.
    """
    launcher = [
        sys.executable,
        "-I",
        "-S",
        str(LAUNCHER),
        str(os.getpid()),
        str(death_signal),
        user,
    ]
    with contextlib.ExitStack() as files:
        if log:
            output = files.enter_context(log.open("ab"))
        process = subprocess.Popen(
            [*launcher, "--", *map(str, argv)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else complaints,
            cwd=directory,
            env=None if environment is None else dict(environment),
            start_new_session=True,
        )
    running.add(process.pid)
    return Child(name, process)


def wait_until(
    is_met: Callable[[], bool], limit_s: float, pause: Pause = time.sleep, step_s: float = PAUSE_S
) -> bool:
    """Wait for a condition that can only be asked for; return whether it was met in time."""
    deadline = time.monotonic() + limit_s
    while not is_met():
        if time.monotonic() >= deadline:
            return False
        pause(step_s)
    return True


def stop(
    *children: Child,
    limit_s: float = STOP_LIMIT_S,
    number: int = signal.SIGTERM,
    pause: Pause = time.sleep,
    is_urgent: Callable[[], bool] = lambda: False,
) -> None:
    """Ask programs to end, all at once; kill those that have not within the limit, or if urgent."""
    for child in children:
        child.send(number)
    wait_until(lambda: all(child.has_ended for child in children) or is_urgent(), limit_s, pause)
    for child in children:
        child.collect()


def free_port(preferred: int = 0) -> int:
    """A TCP port of the loopback that nobody listens on now: the preferred one if it is such.

    Another process may take it before it is used: who starts a server there tries again.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            if not preferred:
                raise
            return free_port()
        port: int = probe.getsockname()[1]
    return port
