"""Runs commands on a cluster over SSH: exec channels with a byte stream to each.

One carrier keeps to one address and shares its connections among its channels. Control and data
each have a carrier of their own, so that no download delays a heartbeat.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import paramiko

from . import addresses, clock, errors, remote_shell, ssh, ssh_errors
from .ssh_transport import TailPipe, Transport

READ_BYTES = 1 << 20
NOISE_LIMIT_BYTES = 256 << 10
OUTPUT_LIMIT_BYTES = 4 << 20
SEND_BYTES = 1 << 20
CHANNEL_LIMIT_S = 20.0
START_LIMIT_S = 60.0
"""What start-up files may take, besides the command's own limit."""
CLOSE_LIMIT_S = 2.0
SETTLE_LIMIT_S = 5.0
SETTLE_STEP_S = 0.1
"""A session that was closed counts until what ran in it has ended."""
SESSIONS = 8
"""Channels on one connection: sshd allows 10 sessions. Source: sshd_config(5), MaxSessions."""
NO_TERMINAL = "password change required but no tty"
"""What OpenSSH says when an expired password was accepted and no terminal is there."""


@dataclass(frozen=True)
class Finished:
    """A command that has ended; `status` is None if a signal ended it."""

    status: int | None
    stdout: bytes
    stderr: str
    took_s: float


@dataclass(eq=False)
class _Connection:
    transport: Transport
    channels: int = 0
    limit: int = SESSIONS

    @property
    def has_room(self) -> bool:
        return self.transport.is_active() and self.channels < self.limit


class SshCarrier:
    """Reaches one account. Close it, or `release` it: then its connections end with their channels.

    `address` keeps to a login node; without it the first that answers is kept to, and told by
    `address`. `is_control`: abort of a channel ends its whole connection, because it is judged by
    its silence.
    """

    def __init__(
        self,
        login: ssh.Login,
        *,
        address: str = "",
        resolver: addresses.Resolver = addresses.system,
        may_login: ssh.MayLogin = ssh.without_budget,
        is_control: bool = True,
        start_limit_s: float = START_LIMIT_S,
    ) -> None:
        self.address = address
        self.logins = 0
        self._login = login
        self._resolver = resolver
        self._may_login = may_login
        self._is_control = is_control
        self._start_limit_s = start_limit_s
        self._lock = threading.Lock()
        self._connecting = threading.Lock()
        self._connections: list[_Connection] = []
        self._is_released = False

    def __enter__(self) -> SshCarrier:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def open(self, argv: Sequence[str]) -> SshChannel:
        """Start `argv` and wait until the account's start-up files are through.

        Raises LoginError, CannotConnect.
        """
        command = remote_shell.command(argv)
        connection, channel = self._execute(command.text)
        opened = SshChannel(self, connection, channel, self._is_control)
        try:
            opened.begin(command, self._start_limit_s)
        except BaseException:
            opened.close()
            raise
        return opened

    def run(self, argv: Sequence[str], stdin: bytes = b"", limit_s: float = 60.0) -> Finished:
        """Run `argv` to its end. Raises LoginError, CannotConnect; after `limit_s` it is killed."""
        begun_at = clock.now()
        channel = self.open(argv)
        try:
            status, stdout = channel.communicate(stdin, begun_at + limit_s)
            return Finished(status, stdout, channel.stderr_tail(), clock.now() - begun_at)
        finally:
            channel.close()

    def release(self) -> None:
        """Log out as soon as no channel is open any more."""
        with self._lock:
            self._is_released = True
            idle = [one for one in self._connections if not one.channels]
        for one in idle:
            self._drop(one)

    def close(self) -> None:
        """Log out now."""
        with self._lock:
            self._is_released = True
            connections = list(self._connections)
        for one in connections:
            self._drop(one)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        with self._lock:
            return sum(one.transport.is_active() for one in self._connections)

    # Connections ----------------------------------------------------------------------------------

    def _execute(self, command: str) -> tuple[_Connection, paramiko.Channel]:
        """A session that runs `command`, on a connection with room for it."""
        settles_at = clock.now() + SETTLE_LIMIT_S
        while True:
            connection = self._with_room()
            try:
                return connection, connection.transport.execute(command, CHANNEL_LIMIT_S)
            except paramiko.ChannelException as problem:
                self.gone(connection)
                if connection.channels:
                    connection.limit = connection.channels  # the next connection takes it
                elif clock.now() > settles_at:
                    self._drop(connection)
                    raise _no_session(problem) from None
                else:
                    time.sleep(SETTLE_STEP_S)  # nothing tells that sshd has let go of a session
            except (paramiko.SSHException, OSError, EOFError) as problem:
                self.gone(connection)
                self._drop(connection)
                words = connection.transport.farewell or str(problem) or type(problem).__name__
                raise errors.CannotConnect(
                    "ssh_broken", f"The SSH connection broke: {words.rstrip('.')}."
                ) from problem

    def _with_room(self) -> _Connection:
        """A connection on which a place is taken for the caller; made if there is none."""
        found = self._take_place()
        if found is not None:
            return found
        with self._connecting:
            found = self._take_place()
            if found is not None:
                return found
            transport, self.address = ssh.open_transport(
                self._login, self.address, resolver=self._resolver, may_login=self._may_login
            )
            self.logins += 1
            made = _Connection(transport, channels=1)
            with self._lock:
                self._connections.append(made)
            return made

    def _take_place(self) -> _Connection | None:
        with self._lock:
            self._connections = [one for one in self._connections if one.transport.is_active()]
            for one in self._connections:
                if one.has_room:
                    one.channels += 1
                    return one
        return None

    def gone(self, connection: _Connection) -> None:
        """A channel was closed, or could not be opened."""
        with self._lock:
            connection.channels -= 1
            is_over = self._is_released and not connection.channels
        if is_over:
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._connections.remove(connection)
        ssh.close(connection.transport)


class SshChannel:
    """One session, shaped as websocket-client wants a socket; see carriers.Channel."""

    def __init__(
        self,
        carrier: SshCarrier,
        connection: _Connection,
        channel: paramiko.Channel,
        is_control: bool,
    ) -> None:
        self._carrier = carrier
        self._connection = connection
        self._transport = connection.transport
        self._channel = channel
        self._is_control = is_control
        self._read_ahead = b""
        self._closing = threading.Lock()
        self._is_closed = False

    # The start ------------------------------------------------------------------------------------

    def begin(self, command: remote_shell.Command, limit_s: float) -> None:
        """Get through the account's start-up files. Raises CannotConnect."""
        ends_at = clock.now() + limit_s
        noise = b""
        try:
            self._channel.settimeout(limit_s)
            self.send(command.preamble)
            while command.ready not in b"\n" + noise:
                self._channel.settimeout(max(0.05, ends_at - clock.now()))
                data = self._channel.recv(READ_BYTES)
                noise += data
                if not data or len(noise) > NOISE_LIMIT_BYTES:
                    raise self._no_start(noise, is_ended=not data)
            self.unread((b"\n" + noise).partition(command.ready)[2])
            self.send(command.go)
        except TimeoutError:
            raise errors.CannotConnect(
                "start_up_files",
                f"The account's start-up files did not finish within {limit_s:g} s"
                f"{_last_line(noise)}. They wait, or read all of stdin: make them silent and quick "
                "for sessions without a terminal.",
            ) from None
        except OSError as problem:
            raise errors.CannotConnect(
                "ssh_broken", f"The SSH connection broke: {problem}."
            ) from problem
        self._channel.settimeout(None)

    def _no_start(self, noise: bytes, is_ended: bool) -> errors.CannotConnect:
        words = self.stderr_tail() or noise.decode("utf-8", "replace")
        if NO_TERMINAL in words.lower():
            return ssh_errors.PasswordExpired(
                "The password has expired. Log in by hand, change it, and enter the new one here."
            )
        if not is_ended:
            return errors.CannotConnect(
                "start_up_files",
                f"The account's start-up files print over {NOISE_LIMIT_BYTES >> 10} KiB. Make "
                "them silent for sessions without a terminal.",
                transient=False,
            )
        return errors.CannotConnect(
            "no_shell",
            f"The account's login shell ended before it ran a command{_last_line(words.encode())}. "
            "Log in by hand and see; the account may be locked, its home directory absent, or its "
            "start-up files may exit.",
        )

    # A socket -------------------------------------------------------------------------------------

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes; b"" at the end. Reads ahead in large pieces."""
        if not self._read_ahead:
            data = self._channel.recv(max(size, READ_BYTES))
            if len(data) <= size:
                return data
            self._read_ahead = data
        taken, self._read_ahead = self._read_ahead[:size], self._read_ahead[size:]
        return taken

    def unread(self, data: bytes) -> None:
        """Give back what was read too far."""
        self._read_ahead = data + self._read_ahead

    def send(self, data: Any) -> int:
        """Send all of `data`, or raise OSError: half a frame would end the stream unseen."""
        view = memoryview(data)
        try:
            while view:
                sent = self._channel.send(bytes(view[: self._channel.out_max_packet_size]))
                # What is given to a dead transport is dropped in silence.
                if not sent or not self._transport.is_active():
                    raise BrokenPipeError("the connection has ended")
                view = view[sent:]
        except (paramiko.SSHException, EOFError) as problem:
            raise BrokenPipeError(f"the connection broke: {problem}") from problem
        return len(data)

    def settimeout(self, limit_s: float | None) -> None:
        self._channel.settimeout(limit_s)

    def gettimeout(self) -> float | None:
        return self._channel.gettimeout()

    def fileno(self) -> int:
        return self._transport.sock.fileno()

    def shutdown(self, how: int) -> None:
        with contextlib.suppress(paramiko.SSHException, EOFError):
            self._channel.shutdown(how)

    def stderr_tail(self) -> str:
        """The last that the command wrote to stderr."""
        pipe = self._channel.in_stderr_buffer
        tail = pipe.tail() if isinstance(pipe, TailPipe) else b""
        return tail.decode("utf-8", "replace").strip()

    def abort(self) -> None:
        """Wake readers and senders at once; the end of a channel alone is told to the server."""
        if self._is_control:
            self._transport.abort()
            return
        threading.Thread(target=self.close, name="ssh-close", daemon=True).start()

    def close(self) -> None:
        """End the session within a bounded time. Idempotent."""
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
        if not self._ends_in_time():
            self._transport.abort()
        self._carrier.gone(self._connection)

    def _ends_in_time(self) -> bool:
        """Say goodbye; on a stuck connection that would take for ever."""
        closer = threading.Thread(target=self._say_goodbye, name="ssh-goodbye", daemon=True)
        closer.start()
        closer.join(CLOSE_LIMIT_S)
        return not closer.is_alive()

    def _say_goodbye(self) -> None:
        with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
            self._channel.close()

    # A command that ends --------------------------------------------------------------------------

    def communicate(self, stdin: bytes, ends_at: float) -> tuple[int | None, bytes]:
        """Give it `stdin`, take its output to the end: its exit status and stdout.

        Raises CannotConnect; a command that takes too long is killed.
        """
        sender = threading.Thread(
            target=self._send_input, args=(stdin,), name="ssh-input", daemon=True
        )
        sender.start()
        output: list[bytes] = []
        size = 0
        try:
            while data := self._receive(ends_at):
                output.append(data)
                size += len(data)
                if size > OUTPUT_LIMIT_BYTES:
                    raise errors.CannotConnect("too_much_output", "A command printed too much.")
            sender.join(max(0.05, ends_at - clock.now()))
            status = self._exit_status(ends_at)
        except TimeoutError:
            self._kill()
            raise errors.CannotConnect(
                "command_timeout",
                "A command on the cluster took too long and was ended"
                f"{_last_line(self.stderr_tail().encode())}.",
            ) from None
        return status, b"".join(output)

    def _receive(self, ends_at: float) -> bytes:
        left_s = ends_at - clock.now()
        if left_s <= 0:
            raise TimeoutError
        self._channel.settimeout(left_s)
        return self.recv(READ_BYTES)

    def _send_input(self, stdin: bytes) -> None:
        # A command may end without reading all of its input.
        with contextlib.suppress(OSError):
            for at in range(0, len(stdin), SEND_BYTES):
                self.send(stdin[at : at + SEND_BYTES])
            self.shutdown(1)

    def _exit_status(self, ends_at: float) -> int | None:
        if not self._channel.status_event.wait(max(0.05, ends_at - clock.now())):
            raise TimeoutError
        if not self._transport.is_active():
            raise errors.CannotConnect("ssh_broken", "The SSH connection broke during a command.")
        status = self._channel.exit_status
        return status if status >= 0 else None

    def _kill(self) -> None:
        with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
            self._transport.signal(self._channel, "KILL")


def _no_session(problem: paramiko.ChannelException) -> ssh_errors.NoMoreSessions:
    return ssh_errors.NoMoreSessions(
        f"The server lets this account log in and opens no session ({problem.text}). Ask the "
        "cluster's support whether commands without a terminal are allowed (MaxSessions in its "
        "sshd_config)."
    )


def _last_line(said: bytes) -> str:
    lines = said[-1000:].decode("utf-8", "replace").strip().splitlines()
    text = "".join(c if c.isprintable() else "?" for c in lines[-1])[:300] if lines else ""
    return f' (it said: "{text}")' if text else ""
