"""A data connection: one request at a time, then raw bytes; used by one thread, no lease.

It needs no daemon: `client.py files` speaks on its own stdin and stdout.
"""

from __future__ import annotations

import hashlib
from typing import Any

import websocket

from cluster_client.protocol import errors as protocol_errors
from cluster_client.protocol import messages, session

from . import carriers, clock, errors, frames


class DataLink:
    """A greeted data connection; every wait ends at `ends_at` (clock.now())."""

    def __init__(self, channel: carriers.Channel, hello: messages.Hello, ends_at: float) -> None:
        self.opened_at = clock.now()
        self._channel = channel
        self._ends_at = ends_at
        self._session = session.Session(messages.DATA_LIMIT_BYTES)
        self._frames = frames.Frames(channel, messages.DATA_LIMIT_BYTES, self._left_s())
        answer = self.ask(hello)
        if not isinstance(answer, messages.Welcome):
            raise errors.CannotConnect(answer.code, answer.message, transient=False)

    def close(self) -> None:
        self._channel.close()

    def extend(self, ends_at: float) -> None:
        """Let the waits for the next requests end at `ends_at`."""
        self._ends_at = ends_at

    def ask(self, message: Any) -> Any:
        """Send a request and return its reply. Raises LinkClosed, NoAnswer."""
        try:
            request_id = self._session.request(message, self._left_s())
            for text in self._session.texts_to_send():
                self._frames.settimeout(self._left_s())
                self._frames.send(text, websocket.ABNF.OPCODE_TEXT)
            while True:
                for item in self._receive_text():
                    if isinstance(item, session.Reply) and item.to == request_id:
                        return item.message
        except protocol_errors.ProtocolError as problem:
            raise errors.LinkClosed(f"The client broke the protocol: {problem}") from problem
        except websocket.WebSocketTimeoutException as problem:
            raise errors.NoAnswer("The client did not answer in time.") from problem
        except (websocket.WebSocketException, OSError) as problem:
            raise errors.LinkClosed(self._why(problem)) from problem

    def read_stream(self, limit_bytes: int) -> bytes:
        """The bytes after Opened, whole and checked against End."""
        pieces: list[bytes] = []
        digest, size = hashlib.sha256(), 0
        try:
            while True:
                opcode, data = self._next()
                if opcode == websocket.ABNF.OPCODE_BINARY:
                    digest.update(data)
                    size += len(data)
                    if size > limit_bytes:
                        raise errors.LinkClosed("The client sent more than was asked for.")
                    pieces.append(data)
                    continue
                for item in self._session.receive(data):
                    if isinstance(item, session.Notice) and isinstance(item.message, messages.End):
                        _check_end(item.message, size, digest.hexdigest())
                        return b"".join(pieces)
        except protocol_errors.ProtocolError as problem:
            raise errors.LinkClosed(f"The client broke the protocol: {problem}") from problem
        except websocket.WebSocketTimeoutException as problem:
            raise errors.NoAnswer("The file did not come in time.") from problem
        except (websocket.WebSocketException, OSError) as problem:
            raise errors.LinkClosed(self._why(problem)) from problem

    def _receive_text(self) -> list[session.Received]:
        opcode, data = self._next()
        if opcode != websocket.ABNF.OPCODE_TEXT:
            raise protocol_errors.OutOfOrder("Raw bytes came before an answer.")
        return self._session.receive(data)

    def _next(self) -> tuple[int, bytes]:
        while True:
            self._frames.settimeout(self._left_s())
            opcode, data = self._frames.receive()
            if opcode == websocket.ABNF.OPCODE_PING:
                self._frames.send(data, websocket.ABNF.OPCODE_PONG)
            elif opcode == websocket.ABNF.OPCODE_CLOSE:
                raise errors.LinkClosed(
                    f"The client closed the connection: {frames.close_words(data)}."
                )
            elif opcode != websocket.ABNF.OPCODE_PONG:
                return opcode, data

    def _left_s(self) -> float:
        return max(0.05, self._ends_at - clock.now())

    def _why(self, problem: Exception) -> str:
        words = self._channel.stderr_tail()
        return f"The connection broke: {problem}" + (f" It said: {words[-300:]}" if words else "")


def _check_end(end: messages.End, size: int, sha256: str) -> None:
    if (end.bytes_sent, end.sha256) != (size, sha256):
        raise errors.LinkClosed("The file came damaged: size or checksum differ.")
