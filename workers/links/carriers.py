"""Ways to run a command on a cluster with a byte stream to it; here: a local process."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import select
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from . import errors

logger = logging.getLogger(__name__)

STDERR_BYTES = 8 << 10
CLEAN_UP_LIMIT_S = 3.0
"""For a command that was hung up."""
REAP_LIMIT_S = 10.0
"""A process that waits for a dead file server outlives SIGKILL for as long as it waits."""
LOGIN_PATH = "/usr/local/bin:/usr/bin:/bin"
"""What sshd gives to a session without start-up files. Source: sshd_config(5), _PATH_STDPATH."""


class Channel(Protocol):
    """A stream to a running command, shaped as websocket-client wants a socket.

    `abort` may be called by any thread, never blocks, and wakes blocked readers and senders.
    """

    def recv(self, size: int) -> bytes: ...
    def recv_into(self, space: memoryview) -> int:
        """Fill `space`, or less of it, with bytes that are known to come; 0 at the end."""

    def send(self, data: Any) -> int: ...
    def settimeout(self, limit_s: float | None) -> None: ...
    def gettimeout(self) -> float | None: ...
    def fileno(self) -> int: ...
    def shutdown(self, how: int) -> None: ...
    def unread(self, data: bytes) -> None: ...
    def has_input(self) -> bool:
        """Whether a `recv` would find something at once."""

    def stderr_tail(self) -> str: ...
    def hang_up(self) -> None:
        """As `abort`, but the command may put its things in order before it ends."""

    def abort(self) -> None: ...
    def close(self) -> None: ...


class Carrier(Protocol):
    """Reaches one cluster account."""

    def open(self, argv: Sequence[str]) -> Channel:
        """Start `argv` there, with its stdin and stdout on the channel. Raises CannotConnect."""


class Account(Carrier, Protocol):
    """One that logs in and out; `address` is where, "" on this machine."""

    @property
    def address(self) -> str: ...

    @property
    def description(self) -> str:
        """Where it goes and how, for people to read."""

    def log_in(self) -> None:
        """Be connected now, not only with the first command. Raises CannotConnect."""

    def release(self) -> None:
        """Log out as soon as no channel is open any more."""

    def close(self) -> None:
        """Log out now."""


def login_environment(passed_on: Mapping[str, str]) -> dict[str, str]:
    """What sshd would give this user, and `passed_on`."""
    account = pwd.getpwuid(os.getuid())
    return {
        "HOME": account.pw_dir,
        "USER": account.pw_name,
        "LOGNAME": account.pw_name,
        "SHELL": account.pw_shell or "/bin/sh",
        "PATH": LOGIN_PATH,
        "LANG": "C.UTF-8",
        **passed_on,
    }


class LocalCarrier:
    """Runs commands as the worker's own user, as if freshly logged in."""

    def __init__(self, passed_on: Mapping[str, str] | None = None) -> None:
        self._environment = login_environment(passed_on or {})

    @property
    def address(self) -> str:
        return ""

    @property
    def description(self) -> str:
        return "this machine, as the worker's own user"

    def log_in(self) -> None:
        """There is nothing to log in to."""

    def release(self) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Nothing is held."""

    def open(self, argv: Sequence[str]) -> LocalChannel:
        home = self._environment["HOME"]
        ours, theirs = socket.socketpair()
        try:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                list(argv),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
                env=self._environment,
                cwd=home if Path(home).is_dir() else "/",
                start_new_session=True,
            )
        except OSError as problem:
            ours.close()
            raise errors.CannotConnect(
                "cannot_start", f"{argv[0]} can't be started: {problem}."
            ) from problem
        finally:
            theirs.close()
        return LocalChannel(ours, process)


class LocalChannel:
    """One local process, known by a socket pair; killed with its group on close."""

    def __init__(self, ours: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self._socket = ours
        self._process = process
        self._read_ahead = b""
        self._closing = threading.Lock()
        self._is_closed = False
        self._is_hung_up = False
        self._stderr: deque[bytes] = deque(maxlen=64)
        self._drain = threading.Thread(
            target=self._drain_stderr, name=f"stderr-{process.pid}", daemon=True
        )
        self._drain.start()

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes; b"" at the end."""
        if not self._read_ahead:
            return self._socket.recv(size)
        taken, self._read_ahead = self._read_ahead[:size], self._read_ahead[size:]
        return taken

    def recv_into(self, space: memoryview) -> int:
        if not self._read_ahead:
            return self._socket.recv_into(space)
        data = self.recv(len(space))
        space[: len(data)] = data
        return len(data)

    def unread(self, data: bytes) -> None:
        """Give back what was read too far."""
        self._read_ahead = data + self._read_ahead

    def has_input(self) -> bool:
        if self._read_ahead:
            return True
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        return bool(waiting.poll(0))

    def send(self, data: Any) -> int:
        """Send all of `data`, or raise: half a frame would end the stream unseen."""
        self._socket.sendall(data)
        return len(data)

    def settimeout(self, limit_s: float | None) -> None:
        self._socket.settimeout(limit_s)

    def gettimeout(self) -> float | None:
        return self._socket.gettimeout()

    def fileno(self) -> int:
        return self._socket.fileno()

    def shutdown(self, how: int) -> None:
        self._socket.shutdown(how)

    def stderr_tail(self) -> str:
        """The last that the command wrote to stderr; waits a moment for one that has just ended."""
        if self._process.poll() is not None:
            self._drain.join(0.5)
        tail = b"".join(list(self._stderr))[-STDERR_BYTES:]
        return tail.decode("utf-8", "replace").strip()

    def hang_up(self) -> None:
        with self._closing:
            self._is_hung_up = True
            if not self._is_closed:
                self._shut_down()

    def abort(self) -> None:
        with self._closing:
            if not self._is_closed:
                self._shut_down()
                self._kill()

    def close(self) -> None:
        """Kill the command with its group, reap it, free everything. Idempotent."""
        if self._is_hung_up:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLEAN_UP_LIMIT_S)
        self.abort()
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
        try:
            self._process.wait(REAP_LIMIT_S)
        except subprocess.TimeoutExpired:
            logger.warning("channel.not_reaped", extra={"pid": self._process.pid})
        self._socket.close()
        self._drain.join(0.5)

    def _shut_down(self) -> None:
        with contextlib.suppress(OSError):  # the other end may have gone first
            self._socket.shutdown(socket.SHUT_RDWR)

    def _kill(self) -> None:
        # The process is not reaped before `close`, so its number can't be anyone else's.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # the whole group may have ended
                os.killpg(self._process.pid, signal.SIGKILL)

    def _drain_stderr(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None  # noqa: S101 - opened as a pipe above
        with stderr:
            while data := os.read(stderr.fileno(), 4096):
                self._stderr.append(data[-4096:])
