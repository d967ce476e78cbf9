"""One command over SSH: a byte stream to it, shaped as websocket-client wants a socket."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import paramiko
from paramiko.buffered_pipe import PipeTimeout

from . import clock, errors, remote_shell, ssh_errors
from .ssh_buffers import PacketPipe, TailPipe
from .ssh_transport import Transport

READ_BYTES = 1 << 20
SEND_BYTES = 1 << 20
NOISE_LIMIT_BYTES = 256 << 10
OUTPUT_LIMIT_BYTES = 4 << 20
CLOSE_LIMIT_S = 2.0
NO_TERMINAL = "password change required but no tty"
"""What OpenSSH says when an expired password was accepted and no terminal is there."""


class SshChannel:
    """One session, shaped as websocket-client wants a socket; see carriers.Channel."""

    def __init__(
        self,
        transport: Transport,
        channel: paramiko.Channel,
        *,
        is_control: bool,
        on_closed: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._channel = channel
        self._on_closed = on_closed
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
            self._send_to_shell(command.preamble)
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
                f"{_last_line(noise.replace(command.text.encode(), b''))}. They wait, or read all "
                "of stdin: make them silent and quick for sessions without a terminal.",
            ) from None
        except OSError as problem:
            raise errors.CannotConnect(
                "ssh_broken", f"The SSH connection broke: {problem}."
            ) from problem
        self._channel.settimeout(None)

    def _send_to_shell(self, data: bytes) -> None:
        try:
            self.send(data)
        except OSError:
            if not self._transport.is_active():
                raise
            # The shell has ended before it read anything: what it said is still to be read.

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
            "Log in by hand and see: the account may be locked, or limited to other commands "
            "(ForceCommand); its home directory may be absent, or its start-up files may exit.",
        )

    # A socket -------------------------------------------------------------------------------------

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes; b"" at the end."""
        if not self._read_ahead:
            return self._channel.recv(size)
        taken, self._read_ahead = self._read_ahead[:size], self._read_ahead[size:]
        return taken

    def recv_into(self, space: memoryview) -> int:
        """As Channel.recv of paramiko, which makes a new object of what comes."""
        pipe = self._channel.in_buffer
        if self._read_ahead or not isinstance(pipe, PacketPipe):
            data = self.recv(len(space))
            space[: len(data)] = data
            return len(data)
        try:
            count = pipe.read_into(space, self._channel.gettimeout())
        except PipeTimeout:
            raise TimeoutError from None
        self._transport.count_as_read(self._channel, count)
        return count

    def unread(self, data: bytes) -> None:
        """Give back what was read too far."""
        self._read_ahead = data + self._read_ahead

    def has_input(self) -> bool:
        return bool(self._read_ahead) or self._channel.recv_ready()

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

    def hang_up(self) -> None:
        """End the session; sshd lets a command without a terminal go on until it notices."""
        self.abort()

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
        self._on_closed()

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


def _last_line(said: bytes) -> str:
    lines = said[-1000:].decode("utf-8", "replace").strip().splitlines()
    text = "".join(c if c.isprintable() else "?" for c in lines[-1])[:300] if lines else ""
    return f' (it said: "{text}")' if text else ""
