"""WebSocket messages over a carrier's channel, whole and bounded."""

from __future__ import annotations

import math
import struct
from typing import Any

import websocket

from cluster_client.protocol import errors as protocol_errors

from . import carriers, clock, errors

URL = "ws://cluster/control"
SMALL_BYTES = 64 << 10
"""Larger frames come into one buffer that is used again: a new one costs more than the copying."""
JOINED_BYTES = 16 << 10
"""Up to here a header and its bytes are joined into one packet; larger ones are not copied."""

NO_MASK = bytes(4)
"""The masking key of bulk data, by which masked is as unmasked. RFC 6455 wants keys that nobody can
foretell, so that a page in a browser can't have proxies take its bytes for HTTP; within an SSH
channel there is neither. Measured for 1 GiB: 5.1 s of CPU here by websocket-client, 0.5 s by the C
code of websockets, and 2.6 s there, where there is only its Python; with this key nothing at all.
Source: https://www.rfc-editor.org/rfc/rfc6455#section-10.3"""
SHORT = struct.Struct(">BB")
MEDIUM = struct.Struct(">BBH")
LONG = struct.Struct(">BBQ")
FINAL, MASKED = 0x80, 0x80
CONTROL_FRAMES = (
    websocket.ABNF.OPCODE_CLOSE,
    websocket.ABNF.OPCODE_PING,
    websocket.ABNF.OPCODE_PONG,
)


class BoundedFrames(websocket.frame_buffer):
    """Refuses a frame by its header: websocket-client itself would read any length, and by 16 KiB.

    Not to be used any more after a wait that took too long.
    """

    def __init__(self, channel: carriers.Channel, limit_bytes: int) -> None:
        super().__init__(channel.recv, True)
        self._channel = channel
        self._limit_bytes = limit_bytes
        self._space = bytearray()
        self.ends_at = math.inf
        """From then on (clock.now()) no more is asked for: TimeoutError."""

    def recv_strict(self, bufsize: int) -> Any:
        """Exactly so many bytes; a memoryview, which holds until the next call, of many."""
        if bufsize <= SMALL_BYTES:
            small = bytearray(bufsize)
            self._fill(memoryview(small))
            return bytes(small)
        if len(self._space) < bufsize:
            self._space = bytearray(bufsize)
        space = memoryview(self._space)[:bufsize]
        self._fill(space)
        return space

    def _fill(self, space: memoryview) -> None:
        while space:
            self._check_time()
            count = self._channel.recv_into(space)
            if not count:
                raise websocket.WebSocketConnectionClosedException("the other end has gone")
            space = space[count:]

    def _check_time(self) -> None:
        """A timeout of the channel begins anew with each byte that comes."""
        if clock.now() >= self.ends_at:
            raise TimeoutError("it came too slowly")

    def recv_length(self) -> None:
        super().recv_length()
        if self.length is not None and self.length > self._limit_bytes:
            raise protocol_errors.FrameTooLarge(
                f"A frame of {self.length} bytes, over the limit of {self._limit_bytes}."
            )


class Frames:
    """A WebSocket client on a channel, frame by frame, each message bounded."""

    def __init__(self, channel: carriers.Channel, limit_bytes: int, connect_limit_s: float) -> None:
        self._channel = channel
        self._limit_bytes = limit_bytes
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._opcode = 0
        try:
            self._socket = websocket.create_connection(
                URL, timeout=connect_limit_s, socket=channel, redirect_limit=0
            )
        except (websocket.WebSocketException, OSError) as problem:
            raise errors.CannotConnect(
                errors.NO_DAEMON, f"No WebSocket greeting: {problem}"
            ) from problem
        self._socket.frame_buffer = self._buffer = BoundedFrames(channel, limit_bytes)
        # From here on the watchdog is the only judge: a timeout would also cut sends in half.
        self._socket.settimeout(None)

    def send(self, data: str | bytes, opcode: int) -> None:
        self._socket.send(data, opcode)

    def send_bytes(self, data: bytes | bytearray | memoryview) -> None:
        """A message of raw bytes, which are not copied. Raises OSError; TimeoutError is its end."""
        header = _header(websocket.ABNF.OPCODE_BINARY, len(data)) + NO_MASK
        if len(data) <= JOINED_BYTES:
            self._channel.send(header + bytes(data))
            return
        self._channel.send(header)
        self._channel.send(data)

    def has_input(self) -> bool:
        """Whether something waits to be received."""
        return self._channel.has_input()

    def settimeout(self, limit_s: float | None) -> None:
        self._socket.settimeout(limit_s)

    def receive(self, ends_at: float = math.inf) -> tuple[int, bytes]:
        """The next whole message or control frame: (opcode, data).

        TimeoutError if it is still coming at `ends_at` (clock.now()).
        """
        opcode, data = self.receive_uncopied(ends_at)
        return opcode, bytes(data)

    def receive_uncopied(self, ends_at: float) -> tuple[int, bytes | memoryview]:
        """As `receive`, but a memoryview among it holds until the next call only."""
        self._buffer.ends_at = ends_at
        while True:
            frame = self._buffer.recv_frame()
            data: Any = frame.data
            if frame.opcode in CONTROL_FRAMES:
                return frame.opcode, bytes(data)
            if (frame.opcode == websocket.ABNF.OPCODE_CONT) != bool(self._opcode):
                raise protocol_errors.MalformedFrame("A continuation out of place.")
            if frame.fin and frame.opcode == websocket.ABNF.OPCODE_BINARY:
                return frame.opcode, data
            self._opcode = self._opcode or frame.opcode
            if data:  # of empty ones any number may come
                self._parts.append(bytes(data))
                self._parts_bytes += len(data)
            if self._parts_bytes > self._limit_bytes:
                raise protocol_errors.FrameTooLarge(f"A message over {self._limit_bytes} bytes.")
            if frame.fin:
                whole = self._opcode, b"".join(self._parts)
                self._opcode, self._parts, self._parts_bytes = 0, [], 0
                return whole


def _header(opcode: int, size: int) -> bytes:
    """Of a whole, masked message. Source: https://www.rfc-editor.org/rfc/rfc6455#section-5.2"""
    if size < 126:
        return SHORT.pack(FINAL | opcode, MASKED | size)
    if size < 1 << 16:
        return MEDIUM.pack(FINAL | opcode, MASKED | 126, size)
    return LONG.pack(FINAL | opcode, MASKED | 127, size)


def close_words(data: bytes) -> str:
    """Code and reason of a close frame."""
    code = int.from_bytes(data[:2], "big") if len(data) >= 2 else 1005
    words = data[2:].decode("utf-8", "replace")
    return f"{code} {words}".strip()
