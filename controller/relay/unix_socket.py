"""The relay on one host: a Unix socket that lives for one transfer.

Rules:
- Its name is in a directory that others may write to (/tmp): it is private from the first moment,
  and each end asks the kernel who the other one is.
- The name goes once the worker is there, and in any failure.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Self
from uuid import UUID

from .. import conf, errors
from . import connection, proof
from .frames import Kind, Reader, json_of, payload_of
from .socket_connection import SocketConnection

PATH_LIMIT_BYTES = 107
"""sun_path holds 108 with its closing NUL. Source: unix(7)."""
STRANGERS = 8
"""How many that have not proved themselves are heard at once; the oldest makes room."""
TIMEVAL = struct.Struct("@ll")
"""struct timeval: seconds, microseconds. Source: socket(7), SO_SNDTIMEO."""
CREDENTIALS = struct.Struct("3i")
"""struct ucred: pid, uid, gid. Source: unix(7), SO_PEERCRED."""


def path_of(token: UUID) -> Path:
    """Where the two of `token` meet. Raises Misconfigured."""
    base = conf.get().ipc_unix_socket
    path = f"{base}.{token}"
    excess = len(os.fsencode(path)) - PATH_LIMIT_BYTES
    if excess > 0:
        raise errors.Misconfigured(
            f"HPC_IPC_UNIX_SOCKET ({base}) is {excess} bytes too long for the name of a socket:"
            " choose a shorter path, in a directory nearer to the root."
        )
    return Path(path)


class UnixListener:
    """Listens from the moment it is made."""

    def __init__(self, token: UUID) -> None:
        self._token = token
        self._path = path_of(token)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._is_bound = False
        try:
            self._bind()
        except OSError as error:
            self.close()
            raise errors.Misconfigured(
                f"No socket can be made at {self._path} ({error.strerror}): see"
                " HPC_IPC_UNIX_SOCKET, its directory and its free space."
            ) from error

    def accept(self, limit_s: float = connection.ACCEPT_LIMIT_S) -> SocketConnection:
        """The worker that proves itself first; whoever does not is dropped."""
        deadline = time.monotonic() + limit_s
        with self, selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            strangers: dict[socket.socket, Reader] = {}
            try:
                while (left_s := deadline - time.monotonic()) > 0:
                    for key, _ in selector.select(left_s):
                        proved = self._hear(key.fileobj, strangers, selector)
                        if proved is not None:
                            return SocketConnection(proved)
            finally:
                for stranger in strangers:
                    stranger.close()
        raise connection.nobody_came(limit_s)

    def close(self) -> None:
        """Take the name away and listen no more."""
        if self._is_bound:
            self._is_bound = False
            self._path.unlink(missing_ok=True)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _bind(self) -> None:
        self._socket.setblocking(False)
        # bind() gives the name the mode of the socket's own inode, less the umask; to change the
        # umask would change it for all threads.
        # Source: unix_bind_bsd in https://github.com/torvalds/linux/blob/master/net/unix/af_unix.c
        os.fchmod(self._socket.fileno(), 0o600)
        self._socket.bind(os.fspath(self._path))
        self._is_bound = True
        self._socket.listen(STRANGERS)

    def _hear(
        self,
        ready: object,
        strangers: dict[socket.socket, Reader],
        selector: selectors.BaseSelector,
    ) -> socket.socket | None:
        """Take one step with whoever is ready; returns the one that has proved itself."""
        if ready is self._socket:
            self._welcome(strangers, selector)
            return None
        if not isinstance(ready, socket.socket) or ready not in strangers:
            return None  # it made room for another in this very round
        stranger = ready
        try:
            is_proved = self._has_proved(stranger, strangers[stranger])
        except (errors.TransferBroken, OSError):
            _drop(stranger, strangers, selector)
            return None
        if not is_proved:
            return None
        del strangers[stranger]
        return stranger

    def _welcome(
        self, strangers: dict[socket.socket, Reader], selector: selectors.BaseSelector
    ) -> None:
        try:
            stranger, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):  # it went again
            return
        except OSError as error:
            raise errors.Unavailable(
                f"The files worker can't be let in ({error.strerror}): see the open files of this"
                " process and their limit."
            ) from error
        stranger.setblocking(False)
        if not _is_ours(stranger):
            stranger.close()
            return
        if len(strangers) >= STRANGERS:
            _drop(next(iter(strangers)), strangers, selector)
        strangers[stranger] = Reader(only={Kind.HELLO})
        selector.register(stranger, selectors.EVENT_READ)

    def _has_proved(self, stranger: socket.socket, reader: Reader) -> bool:
        """Raises TransferBroken for one that went, or said anything but the right thing."""
        with suppress(BlockingIOError):
            while count := stranger.recv_into(reader.space):
                frame = reader.take(count)
                if frame is None:
                    continue
                if proof.is_proof(self._token, json_of(frame).get("proof")):
                    return True
                raise errors.TransferBroken("The proof is wrong.")
            raise connection.gone()
        return False


def _drop(
    stranger: socket.socket,
    strangers: dict[socket.socket, Reader],
    selector: selectors.BaseSelector,
) -> None:
    selector.unregister(stranger)
    del strangers[stranger]
    stranger.close()


def _is_ours(peer: socket.socket) -> bool:
    """Whether the other end runs as our own user, by the kernel's word."""
    told = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    uid: int = CREDENTIALS.unpack(told)[1]
    return uid == os.geteuid()


def connect(token: UUID, limit_s: float = connection.CONNECT_LIMIT_S) -> SocketConnection:
    """Meet the web process that listens for `token`. Raises Unavailable."""
    path = path_of(token)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # settimeout() would not wait where the queue of those who connect is full.
        # Source: unix_stream_connect in af_unix.c, as above
        limit = TIMEVAL.pack(int(limit_s), int(limit_s % 1 * 1e6))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        made.connect(os.fspath(path))
        if not _is_ours(made):
            raise PermissionError(f"{path} is another user's")
    except OSError as error:
        made.close()
        if isinstance(
            error, ConnectionRefusedError
        ):  # its process was killed: nobody else clears up
            path.unlink(missing_ok=True)
        raise errors.Unavailable(_why_not(path, error)) from error
    found = SocketConnection(made)
    try:
        found.send(Kind.HELLO, payload_of({"proof": proof.proof(token)}))
    except errors.HpcError:
        found.close()
        raise
    return found


def _why_not(path: Path, error: OSError) -> str:
    remedy = "set HPC_FILE_RELAY_URL for the web processes and the files workers"
    if isinstance(error, PermissionError):
        return (
            f"The web process's socket {path} is another user's: run web processes and files"
            f" workers as one user, or {remedy}."
        )
    if isinstance(error, TimeoutError | BlockingIOError):
        return f"The web process does not take connections at {path}: start the transfer again."
    return (
        f"Nobody listens at {path}: whoever asked for the file has gone; or the web process runs"
        " on another host, has a /tmp of its own (PrivateTmp of systemd) or another"
        f" HPC_IPC_UNIX_SOCKET. In the latter cases {remedy}, or let both see one path."
    )
