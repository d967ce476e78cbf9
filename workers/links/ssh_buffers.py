"""What paramiko's socket and pipes are replaced by, for speed; see ssh_transport.py."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from paramiko import SSHException
from paramiko.buffered_pipe import PipeTimeout

SOCKET_BYTES = 256 << 10
AT_ONCE_BYTES = 256 << 10
"""A reader of bulk is woken for so many: an eighth of the smallest window, so that none waits."""


class BufferedSocket:
    """A socket for a Transport: reads much at once, hands out what is asked for."""

    def __init__(self, plain: socket.socket) -> None:
        self._plain = plain
        self._data = b""
        self._at = 0
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def recv(self, size: int) -> bytes:
        at, data = self._at, self._data
        if at >= len(data):
            data = self._plain.recv(max(size, SOCKET_BYTES))
            if len(data) <= size:
                return data
            self._data, at = data, 0
        self._at = at + size
        return data[at : at + size]

    def unread(self, data: bytes) -> None:
        """Give back what was read too far."""
        self._data = data + self._data[self._at :]
        self._at = 0

    def send(self, data: bytes) -> int:
        return self._plain.send(data)

    def settimeout(self, limit_s: float | None) -> None:
        self._plain.settimeout(limit_s)

    def getpeername(self) -> Any:
        return self._plain.getpeername()

    def fileno(self) -> int:
        return self._plain.fileno()

    def close(self) -> None:
        # Shut down first: that wakes whoever is in the middle of a read or a send.
        with contextlib.suppress(OSError):
            self._plain.shutdown(socket.SHUT_RDWR)
        self._plain.close()

    @property
    def _closed(self) -> bool:
        # paramiko asks a socket for this.
        return self._plain.fileno() < 0


class PacketPipe:
    """What has come on a channel and was not read yet, packet by packet.

    A server that sends more than `limit_bytes` ahead of the reader, beyond the channel's window,
    has its connection ended: paramiko itself would store it all.
    """

    def __init__(self, limit_bytes: float = math.inf) -> None:
        self._limit_bytes = limit_bytes
        self._changed = threading.Condition(threading.Lock())
        self._packets: deque[bytes] = deque()
        self._size = 0
        self._is_closed = False
        self._wanted = 1
        self._event: Any = None

    def set_event(self, event: Any) -> None:
        with self._changed:
            self._event = event
            self._tell()

    def feed(self, data: bytes) -> None:
        with self._changed:
            if self._size + len(data) > self._limit_bytes:
                raise SSHException("The server sends more than the window allows.")
            self._packets.append(data)
            self._size += len(data)
            if self._size >= self._wanted:
                self._changed.notify_all()
            self._tell()

    def read_ready(self) -> bool:
        return self._size > 0

    def read(self, size: int, timeout: float | None = None) -> bytes:
        """Up to `size` bytes; b"" at the end. Raises PipeTimeout."""
        with self._changed:
            self._await(1, timeout)
            data = self._take(size)
            self._tell()
            return data

    def read_into(self, space: memoryview, timeout: float | None = None) -> int:
        """How many bytes were put into `space`, which are known to come; 0 at the end.

        Whoever reads is not woken for each packet. Raises PipeTimeout.
        """
        with self._changed:
            self._await(min(len(space), AT_ONCE_BYTES), timeout)
            count = self._move(space)
            self._tell()
            return count

    def empty(self) -> bytes:
        with self._changed:
            data = self._take(self._size)
            self._tell()
            return data

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            self._tell()

    def __len__(self) -> int:
        return self._size

    def _await(self, wanted: int, timeout: float | None) -> None:
        self._wanted = wanted
        try:
            is_there = self._changed.wait_for(
                lambda: self._size >= wanted or self._is_closed, timeout
            )
        finally:
            self._wanted = 1
        if not is_there:
            raise PipeTimeout

    def _move(self, space: memoryview) -> int:
        packets, at = self._packets, 0
        while packets and at < len(space):
            packet = packets.popleft()
            left = len(space) - at
            if len(packet) > left:
                packets.appendleft(packet[left:])
                packet = packet[:left]
            space[at : at + len(packet)] = packet
            at += len(packet)
        self._size -= at
        return at

    def _take(self, size: int) -> bytes:
        packets = self._packets
        if self._size <= size:
            data = packets[0] if len(packets) == 1 else b"".join(packets)
            packets.clear()
            self._size = 0
            return data
        parts, left = [], size
        while left:
            packet = packets.popleft()
            if len(packet) > left:
                packets.appendleft(packet[left:])
                packet = packet[:left]
            parts.append(packet)
            left -= len(packet)
        self._size -= size
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _tell(self) -> None:
        if self._event is None:
            return
        if self._size or self._is_closed:
            self._event.set()
        else:
            self._event.clear()


class TailPipe(PacketPipe):
    """Keeps the end of what comes; `on_taken` hears at once of how much, as if it had been read."""

    def __init__(self, limit_bytes: int, on_taken: Callable[[int], None]) -> None:
        super().__init__()
        self._kept_bytes = limit_bytes
        self._on_taken = on_taken

    def feed(self, data: bytes) -> None:
        """In the transport's thread."""
        super().feed(data)
        with self._changed:
            excess = self._size - self._kept_bytes
            if excess > 0:
                self._take(excess)
        self._on_taken(len(data))

    def tail(self) -> bytes:
        """What is kept, which stays."""
        with self._changed:
            return b"".join(self._packets)
