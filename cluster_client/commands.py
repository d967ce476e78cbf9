"""Runs one command: in a group of its own, under a time limit, and never longer than we live."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Callable, Optional

from cluster_client import errors, limits

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_OUTPUT_LIMIT_BYTES = 64 << 20


@dataclass(frozen=True)
class Finished:
    """A command that ended by itself."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    took_s: float


def run(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    limit_s: float,
    stdin: str = "",
    executable: Optional[str] = None,
    directory: str = "/",
    umask: Optional[int] = None,
    soft_limits: limits.Limits = MappingProxyType({}),
    on_start: Optional[Callable[[], None]] = None,
) -> Finished:
    """Run `argv` and wait for its end; its outputs are decoded, undecodable bytes kept escaped.

    Raises CommandTimedOut after `limit_s` (the whole group is killed first), CommandFailed if it
    can't be started. Call it on a thread that waits for it: the command dies with that thread.
    """
    started = time.monotonic()
    with _memory_file("in") as inp, _memory_file("out") as out, _memory_file("err") as err:
        os.write(inp, stdin.encode("utf-8", "surrogateescape"))
        os.lseek(inp, 0, os.SEEK_SET)
        place = _Place(directory, -1 if umask is None else umask, soft_limits)
        process = _start(argv, dict(environment), executable, (inp, out, err), place)
        try:
            if on_start is not None:
                on_start()
            is_ended = _wait(process, limit_s)
        finally:
            _end_group(process)
        took_s = time.monotonic() - started
        logger.debug(
            "command ended",
            extra={"argv": list(argv), "returncode": process.returncode, "took_s": took_s},
        )
        if not is_ended:
            raise errors.CommandTimedOut(
                f"{argv[0]} did not end within {limit_s:g} s and was killed."
            )
        return Finished(tuple(argv), process.returncode, _text(out), _text(err), took_s)


@contextlib.contextmanager
def _memory_file(name: str) -> Iterator[int]:
    # Files, not pipes: a grandchild that keeps a pipe open would hold us up to the limit.
    descriptor = os.memfd_create(f"hpc-{name}", os.MFD_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _text(descriptor: int) -> str:
    size = min(os.fstat(descriptor).st_size, _OUTPUT_LIMIT_BYTES)
    return os.pread(descriptor, size, 0).decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class _Place:
    """Where a command starts; umask -1: our own, as are the limits that are not named."""

    directory: str
    umask: int
    soft_limits: limits.Limits


def _start(
    argv: Sequence[str],
    environment: dict[str, str],
    executable: Optional[str],
    files: tuple[int, int, int],
    place: _Place,
) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def prepare() -> None:
        limits.take_on(place.soft_limits)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died between fork and prctl
            os._exit(127)

    try:
        return subprocess.Popen(
            list(argv),
            executable=executable or which(argv[0], environment),
            stdin=files[0],
            stdout=files[1],
            stderr=files[2],
            env=environment,
            cwd=place.directory,
            umask=place.umask,
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509 (system calls alone, nothing that locks)
        )
    except (OSError, ValueError) as error:
        raise errors.CommandFailed(f"{argv[0]} could not be started: {error}.") from error


def which(name: str, environment: Mapping[str, str]) -> str:
    """The file of a command on the PATH of `environment` (Popen searches our own); raises
    CommandFailed."""
    if os.sep in name:
        return name
    for directory in environment.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(directory or ".", name)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise errors.CommandFailed(
        f"{name} was not found on the cluster account's PATH"
        f" ({environment.get('PATH', os.defpath)}); a set-up command may be missing."
    )


def _wait(process: subprocess.Popen[bytes], limit_s: float) -> bool:
    """True if it ended in time. By pidfd where there is one: Popen.wait(timeout) polls."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # before Linux 5.3
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(limit_s)
        return process.returncode is not None
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(max(0.0, limit_s) * 1000):
            return False
    finally:
        os.close(descriptor)
    process.wait()
    return True


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the command's group, and reap the command itself."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)  # one in uninterruptible sleep can't be waited for
