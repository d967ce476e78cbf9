"""A WebSocket over stdin and stdout, for `files` and `serve --stdio`; threads around the Sans-I/O
server of websockets.

One thread reads. Whoever has something to send writes it; while one writes, others add to its
pile and wait for their turn, and the reader adds pongs and does not wait. No lock is held during
a write.

Files go around the library's frames where these would copy them: a binary message is sent from its
owner's buffer by writev(2), behind a header that is made here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import queue
import select
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Callable, Optional, Union

from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from . import masking
from .protocol import messages

READ_BYTES = 1 << 18
MESSAGES_WAITING = 4
DELIVER_STEP_S = 0.25
STALL_LIMIT_S = 600.0
"""Of one write. Whoever does not read for so long is gone: its host, or the network between."""
STALL_STEP_S = 5.0
CLOSE_LIMIT_S = 2.0
BUFFERS_AT_ONCE = 64
PIPE_BYTES = 1 << 18
F_SETPIPE_SZ = 1031
"""Source: fcntl(2); the module fcntl has the name since Python 3.10."""

_library_logger = logging.getLogger(f"{__name__}.websockets")
_library_logger.setLevel(logging.CRITICAL)  # links log themselves

Message = Union[str, bytes]
Buffer = Union[bytes, memoryview]
Data = Union[bytes, bytearray, memoryview]


@dataclass(frozen=True)
class Incoming:
    """A whole message; text stays bytes: the codec judges whether it is UTF-8."""

    data: Data
    is_binary: bool


def _nothing() -> None:
    return None


class StdioSocket:
    """The server's side of one WebSocket; takes stdin and stdout for itself.

    `waiting`: messages that may wait for `recv` before the other end has to. `on_gone` is called
    by the reading thread, last, once nothing more can come.
    """

    def __init__(
        self,
        max_size: int = messages.CONTROL_LIMIT_BYTES,
        waiting: int = MESSAGES_WAITING,
        on_gone: Callable[[], None] = _nothing,
    ) -> None:
        self._input, self._output = os.dup(0), os.dup(1)
        for pipe in (self._input, self._output):
            _widen(pipe)
        with open(os.devnull, "rb") as null:
            os.dup2(null.fileno(), 0)
        os.dup2(2, 1)  # what a library prints must not end up among the frames
        masking.install()
        self._protocol = ServerProtocol(max_size=max_size, logger=_library_logger)
        self._messages: queue.Queue[Optional[Incoming]] = queue.Queue(waiting)
        self._fragments: list[Data] = []
        self._is_binary = False
        self._on_gone = on_gone
        self._is_read = threading.Event()
        self._is_ended = False
        self._changed = threading.Condition()
        self._pile: deque[Buffer] = deque()
        self._piled = 0
        self._written = 0
        self._is_writing = False
        self._writing_since = 0.0
        self._is_over = False
        self._reader = threading.Thread(target=self._read, name="stdio-reader", daemon=True)
        self._reader.start()

    # For the handlers ---------------------------------------------------------------------------

    def recv(self, timeout: Optional[float] = None) -> bytes:
        """The next message, text or not; TimeoutError, or ConnectionClosed at the end."""
        return bytes(self.receive(timeout).data)

    def receive(self, timeout: Optional[float] = None) -> Incoming:
        """The next message and whether it is binary; TimeoutError, or ConnectionClosed."""
        try:
            message = self._messages.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError("no message came in time") from None
        if message is None:
            self._messages.put(None)  # for the next call
            raise self._closed()
        return message

    def send(self, message: Message) -> None:
        """Send a message and wait until it is written."""
        with self._changed:
            if self._is_over or self._protocol.state is not State.OPEN:
                raise self._closed()
            if isinstance(message, str):
                self._protocol.send_text(message.encode())
            else:
                self._protocol.send_binary(message)
            mine = self._take_output()
        self._flush(mine)

    def send_buffer(self, payload: memoryview) -> None:
        """Send a binary message from the caller's buffer; written on return, or never."""
        with self._changed:
            if self._is_over or self._protocol.state is not State.OPEN:
                raise self._closed()
            self._take_output()
            self._pile += (_header(len(payload)), payload)
            self._piled += 2
            mine = self._piled
        self._flush(mine)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye and give the other end a bounded time to answer."""
        with self._changed:
            if not self._is_over and self._protocol.state is State.OPEN:
                self._protocol.send_close(code, reason)
            mine = self._take_output()
        self._flush(mine)
        self._is_read.wait(CLOSE_LIMIT_S)
        self.drop()

    def drop(self) -> None:
        """End it now."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        self._end_of_messages()

    # Reading ------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            while not self._is_over:
                self._wait_for_input()
                data = os.read(self._input, READ_BYTES)
                with self._changed:
                    if data:
                        self._protocol.receive_data(data)
                    else:
                        self._protocol.receive_eof()
                    events = self._protocol.events_received()
                    for event in events:
                        if isinstance(event, Request):
                            self._protocol.send_response(self._protocol.accept(event))
                    self._take_output()
                self._flush(None)
                for event in events:
                    if isinstance(event, Frame):
                        self._take_frame(event)
                if not data or self._is_ended:
                    return
        except OSError:
            return  # the other end is gone, or as good as that
        finally:
            self.drop()
            self._is_read.set()
            self._on_gone()

    def _wait_for_input(self) -> None:
        poll = select.poll()
        poll.register(self._input, select.POLLIN)
        while not poll.poll(STALL_STEP_S * 1000):
            since = self._writing_since
            if since and time.monotonic() - since > STALL_LIMIT_S:
                raise TimeoutError("the other end does not read")

    def _take_frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._is_binary = frame.opcode is Opcode.BINARY
            self._fragments = [frame.data]
        elif frame.opcode is Opcode.CONT:
            self._fragments.append(frame.data)
        else:
            return
        if frame.fin:
            self._deliver(Incoming(_joined(self._fragments, self._is_binary), self._is_binary))
            self._fragments = []

    def _deliver(self, message: Incoming) -> None:
        while not self._is_over:
            try:
                self._messages.put(message, timeout=DELIVER_STEP_S)
                return
            except queue.Full:  # the handler is slow: the other end has to wait
                if self._is_hung_up():
                    raise BrokenPipeError(errno.EPIPE, "the other end has gone") from None

    def _is_hung_up(self) -> bool:
        """True once nobody can write to us any more, though bytes may still wait to be read."""
        poll = select.poll()
        poll.register(self._input, select.POLLRDHUP)
        return bool(poll.poll(0))  # POLLHUP and POLLERR are told unasked

    def _end_of_messages(self) -> None:
        while True:
            try:
                self._messages.put_nowait(None)
                return
            except queue.Full:
                try:
                    self._messages.get_nowait()
                except queue.Empty:
                    continue

    def _closed(self) -> ConnectionClosed:
        if self._protocol.state is State.CLOSED:
            return self._protocol.close_exc
        return ConnectionClosedError(None, None)

    # Writing ------------------------------------------------------------------------------------

    def _take_output(self) -> int:
        """Move what the protocol wants sent to the pile; its number. Call with the lock."""
        for data in self._protocol.data_to_send():
            if data:
                self._pile.append(data)
                self._piled += 1
            else:  # asks for the end of the stream, which comes with the end of the process
                self._is_ended = True
        return self._piled

    def _flush(self, mine: Optional[int]) -> None:
        """Write the pile, or let the one who writes do it and wait until `mine` is written."""
        with self._changed:
            if self._is_writing:
                if mine is not None:
                    self._changed.wait_for(lambda: self._is_over or self._written >= mine)
                return
            self._is_writing = True
        try:
            while True:
                with self._changed:
                    if not self._pile or self._is_over:
                        return
                    buffers = [self._pile.popleft() for _ in range(self._at_once())]
                self._write(buffers)
                with self._changed:
                    self._written += len(buffers)
                    self._changed.notify_all()
        except OSError:
            self.drop()
        finally:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()

    def _at_once(self) -> int:
        return min(len(self._pile), BUFFERS_AT_ONCE)

    def _write(self, buffers: list[Buffer]) -> None:
        left = deque(buffers)
        while left:
            self._writing_since = time.monotonic()
            written = os.writev(self._output, left)
            self._writing_since = 0.0
            while left and written >= len(left[0]):
                written -= len(left.popleft())
            if written:
                left[0] = memoryview(left[0])[written:]


def _joined(fragments: list[Data], is_binary: bool) -> Data:
    if is_binary and len(fragments) == 1:
        return fragments[0]  # the frame was made for us: no copy
    return b"".join(fragments)


def _widen(pipe: int) -> None:
    """Let a pipe hold more than its usual 64 KiB, so that fewer calls and wake-ups carry a file.

    Not the 1 MiB that any process may ask for: all pipes of an account together may hold 64 MiB,
    and past that its new ones get next to nothing. Source: pipe(7), pipe-user-pages-soft
    """
    with contextlib.suppress(OSError):  # a socket, or too many of them
        fcntl.fcntl(pipe, F_SETPIPE_SZ, PIPE_BYTES)


def _header(length: int) -> bytes:
    """Of an unmasked binary message in one frame. Source: RFC 6455, 5.2"""
    if length < 126:
        return struct.pack("!BB", 0x82, length)
    if length < 1 << 16:
        return struct.pack("!BBH", 0x82, 126, length)
    return struct.pack("!BBQ", 0x82, 127, length)
