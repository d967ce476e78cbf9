"""Frames over a connected socket, for threads and for asyncio.

The socket never blocks: threads wait by poll, asyncio by its loop, on the same connection.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .. import conf, errors
from . import connection
from .frames import Bytes, Frame, Kind, Reader, head


class SocketConnection:
    """Frames over a connected socket."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._reader = Reader()
        self._is_torn = False
        self._usage = connection.Usage(connected.close)

    def send(self, kind: Kind, payload: Bytes = b"") -> None:
        limit_s = conf.get().transfer_stall_s
        deadline = time.monotonic() + limit_s
        parts = [memoryview(head(kind, len(payload))), memoryview(payload)]
        with self._usage, self._whole(), self._told():
            while parts:
                try:
                    _advance(parts, self._socket.sendmsg(parts))
                except BlockingIOError:
                    self._wait(select.POLLOUT, deadline, limit_s)

    def receive(self, limit_s: float) -> Frame:
        deadline = time.monotonic() + limit_s
        with self._usage, self._told():
            while True:
                try:
                    count = self._socket.recv_into(self._reader.space)
                except BlockingIOError:
                    self._wait(select.POLLIN, deadline, limit_s)
                    continue
                frame = self._taken(count)
                if frame is not None:
                    return frame

    async def asend(self, kind: Kind, payload: Bytes = b"") -> None:
        limit_s = conf.get().transfer_stall_s
        loop = asyncio.get_running_loop()
        with self._usage, self._whole(), self._told():
            try:
                async with asyncio.timeout(limit_s):
                    await loop.sock_sendall(self._socket, head(kind, len(payload)))
                    await loop.sock_sendall(self._socket, payload)
            except TimeoutError as error:
                raise connection.stalled(limit_s) from error

    async def areceive(self, limit_s: float) -> Frame:
        loop = asyncio.get_running_loop()
        with self._usage, self._told():
            try:
                async with asyncio.timeout(limit_s):
                    while True:
                        count = await loop.sock_recv_into(self._socket, self._reader.space)
                        frame = self._taken(count)
                        if frame is not None:
                            return frame
            except TimeoutError as error:
                raise connection.stalled(limit_s) from error

    def wait_gone(self, limit_s: float) -> bool:
        if self._usage.is_ended:
            return True
        with suppress(errors.TransferBroken), self._usage:
            waiting = select.poll()
            waiting.register(self._socket, select.POLLRDHUP)
            return bool(waiting.poll(limit_s * 1000))
        return True

    def close(self) -> None:
        if not self._usage.end():
            return
        with suppress(OSError):  # the other end was first
            self._socket.shutdown(socket.SHUT_RDWR)
        self._usage.leave()

    def __del__(self) -> None:
        self.close()

    def _taken(self, count: int) -> Frame | None:
        if not count:
            raise connection.gone()
        return self._reader.take(count)

    def _wait(self, event: int, deadline: float, limit_s: float) -> None:
        left_s = deadline - time.monotonic()
        waiting = select.poll()
        waiting.register(self._socket, event)
        if left_s <= 0 or not waiting.poll(left_s * 1000):
            raise connection.stalled(limit_s)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """A frame that did not go whole leaves nothing that could be sent after it."""
        if self._is_torn:
            raise connection.gone()
        self._is_torn = True
        yield
        self._is_torn = False

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise connection.gone() from error


def _advance(parts: list[memoryview], count: int) -> None:
    """Take the first `count` bytes, and what is empty, away from `parts`."""
    while parts and count >= len(parts[0]):
        count -= len(parts[0])
        del parts[0]
    if parts:
        parts[0] = parts[0][count:]
