"""Processes and sockets that detached themselves from a stack: the daemon and its jobs."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster_client import socket_directory
from ops import processes

PROC = Path("/proc")
ASK_LIMIT_S = 3.0
KILL_LIMIT_S = 10.0
STEP_S = 0.1


@dataclass(frozen=True)
class Belongings:
    """How the processes of a stack are known: by a word in argv or environment, or by their place.

    The environment of jobs is built from nothing, so they are known by their working directory.
    """

    mark: str
    client_path: Path
    with_jobs: bool

    def find(self) -> list[int]:
        """The processes of our user that belong to the stack."""
        numbers = [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]
        return [number for number in numbers if number != os.getpid() and self._has(number)]

    def _has(self, pid: int) -> bool:
        directory = PROC / str(pid)
        # A process may end while it is looked at, and others' are not readable: neither is ours.
        with contextlib.suppress(OSError):
            if directory.stat().st_uid != os.geteuid() or _is_zombie(directory):
                return False
            place = os.fsencode((directory / "cwd").readlink()) + b"/"
            words = (directory / "cmdline").read_bytes() + (directory / "environ").read_bytes()
            client = os.fsencode(self.client_path) + b"/"
            if not self.with_jobs and (client + b"jobs/" in words + place):
                return False
            return os.fsencode(self.mark) in words or client in words or place.startswith(client)
        return False


def _is_zombie(directory: Path) -> bool:
    # The state follows the name, which stands in brackets and may hold any character.
    return (directory / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z"


def socket_directories(client_path: Path, pids: list[int]) -> set[Path]:
    """Where the daemons of a client path have their sockets; they may have got no further yet."""
    states = client_path / "state"
    found = {Path(socket_directory.usual_path(str(key))) for key in states.glob("*")}
    prefix = f"{socket_directory.BASE}/hpc-{os.geteuid()}-"
    for pid in pids:
        with contextlib.suppress(OSError):
            targets = [entry.readlink() for entry in (PROC / str(pid) / "fd").iterdir()]
            found.update(target for target in targets if str(target).startswith(prefix))
    return {path for path in found if path.is_dir() and not path.is_symlink()}


def end(
    belongings: Belongings, pause: processes.Pause, others: Callable[[], list[int]] = list
) -> list[str]:
    """End what belongs to a stack, `others` too, and remove its sockets; name what stays."""
    directories = socket_directories(belongings.client_path, [])

    def is_over(number: int) -> bool:
        pids = [*belongings.find(), *others()]
        directories.update(socket_directories(belongings.client_path, pids))
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return not pids

    if not processes.wait_until(lambda: is_over(signal.SIGTERM), ASK_LIMIT_S, pause, STEP_S):
        processes.wait_until(lambda: is_over(signal.SIGKILL), KILL_LIMIT_S, pause, STEP_S)
    for directory in directories:
        (directory / socket_directory.SOCKET).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            directory.rmdir()
    return [f"process {pid}" for pid in [*belongings.find(), *others()]]
