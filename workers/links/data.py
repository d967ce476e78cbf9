"""A data connection: one request at a time, then raw bytes either way; no lease.

It needs no daemon: `client.py files` speaks on its own stdin and stdout. Used by one thread;
`abort` is anybody's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import websocket

from cluster_client.protocol import errors as protocol_errors
from cluster_client.protocol import messages, session

from . import carriers, clock, errors, frames

LAST_WORDS_S = 1.0
"""How long to listen for the reason once a send has failed."""
BEFORE_BYTES = (messages.Opened, messages.Ready)
"""Answers after which the link is not free until the bytes have passed."""


class DataLink:
    """A greeted data connection; every wait ends at `ends_at` (clock.now())."""

    def __init__(self, channel: carriers.Channel, hello: messages.Hello, ends_at: float) -> None:
        self.opened_at = clock.now()
        self._channel = channel
        self._is_free = False
        self._is_ended = False
        self._is_writing = False
        """Whether the client has a file to remove if it does not come whole."""
        self._ends_at = ends_at
        self._session = session.Session(messages.DATA_LIMIT_BYTES)
        self._frames = frames.Frames(channel, messages.DATA_LIMIT_BYTES, self._left_s())
        answer = self.ask(hello)
        if not isinstance(answer, messages.Welcome):
            raise errors.CannotConnect(answer.code, answer.message, transient=False)

    @property
    def is_free(self) -> bool:
        """Whether nothing is under way, so that something else may be asked."""
        return self._is_free and not self._is_ended

    def close(self) -> None:
        self._is_ended = True
        if self._is_writing:
            self._channel.hang_up()
        self._channel.close()

    def abort(self) -> None:
        """End it at once, from any thread: whoever waits on it is told that it is closed."""
        self._is_ended = True
        if self._is_writing:
            self._channel.hang_up()
        else:
            self._channel.abort()

    def extend(self, ends_at: float) -> None:
        """Let the next waits end at `ends_at`."""
        self._ends_at = ends_at

    def ask(self, message: Any) -> Any:
        """Send a request and return its reply. Raises LinkClosed, NoAnswer."""
        self._is_free = False
        self._is_writing = self._is_writing or isinstance(message, messages.Put)
        with self._told("The client did not answer in time."):
            request_id = self._session.request(message, self._left_s())
            for text in self._session.texts_to_send():
                self._frames.settimeout(self._left_s())
                self._frames.send(text, websocket.ABNF.OPCODE_TEXT)
            reply = self._reply_to(request_id)
            self._is_free = not isinstance(reply, BEFORE_BYTES)
            self._is_writing = isinstance(reply, messages.Ready)
            return reply

    def read_stream(self, limit_bytes: int) -> bytes:
        """The bytes after Opened, whole and checked against End."""
        pieces: list[bytes] = []
        digest, size = hashlib.sha256(), 0
        while not isinstance(piece := self.receive_piece(), messages.End):
            digest.update(piece)
            size += len(piece)
            if size > limit_bytes:
                raise errors.LinkClosed("The client sent more than was asked for.")
            pieces.append(bytes(piece))
        if (piece.bytes_sent, piece.sha256) != (size, digest.hexdigest()):
            raise errors.LinkClosed("The file came damaged: size or checksum differ.")
        return b"".join(pieces)

    def receive_piece(self) -> bytes | memoryview | messages.End:
        """The next bytes after Opened, as they were sent, or their End. Raises as `ask`.

        They are there until the next call.
        """
        with self._told("The file did not come in time."):
            while True:
                opcode, data = self._next()
                if opcode == websocket.ABNF.OPCODE_BINARY:
                    return data
                for item in self._session.receive(bytes(data)):
                    if isinstance(item, session.Notice) and isinstance(item.message, messages.End):
                        self._is_free = True
                        return item.message

    def send_piece(self, data: bytes | bytearray | memoryview) -> bool:
        """Bytes after Ready; False if the client wants no more, as Finish will tell.

        Raises as `ask`, with what the client has said if it closed.
        """
        with self._told("The client took nothing any more."):
            self._frames.settimeout(self._left_s())
            try:
                self._frames.send_bytes(data)
            except TimeoutError:
                raise
            except OSError:
                self._hear_why()
                raise
            return not self._frames.has_input() or not self._is_ended_by_client()

    def _is_ended_by_client(self) -> bool:
        """Whether what it says after Ready is that it failed."""
        _, text = self._next()
        return any(
            isinstance(item, session.Notice) and isinstance(item.message, messages.End)
            for item in self._session.receive(bytes(text))
        )

    def _hear_why(self) -> None:
        """Raise LinkClosed with the client's words, if it has left any; what it sent is dropped."""
        self._ends_at = min(self._ends_at, clock.now() + LAST_WORDS_S)
        try:
            while True:
                self._next()
        except (websocket.WebSocketException, protocol_errors.ProtocolError, OSError):
            return  # it said nothing: the failed send tells more

    def _reply_to(self, request_id: int) -> Any:
        while True:
            opcode, data = self._next()
            if opcode != websocket.ABNF.OPCODE_TEXT:
                raise protocol_errors.OutOfOrder("Raw bytes came before an answer.")
            for item in self._session.receive(bytes(data)):
                if isinstance(item, session.Reply) and item.to == request_id:
                    return item.message

    def _next(self) -> tuple[int, bytes | memoryview]:
        while True:
            if clock.now() >= self._ends_at:  # also if it talks on and on
                raise TimeoutError("nothing of use came")
            self._frames.settimeout(self._left_s())
            opcode, data = self._frames.receive_uncopied(self._ends_at)
            if opcode == websocket.ABNF.OPCODE_PING:
                self._frames.send(bytes(data), websocket.ABNF.OPCODE_PONG)
            elif opcode == websocket.ABNF.OPCODE_CLOSE:
                raise errors.LinkClosed(
                    f"The client closed the connection: {frames.close_words(bytes(data))}."
                )
            elif opcode != websocket.ABNF.OPCODE_PONG:
                return opcode, data

    def _left_s(self) -> float:
        return max(0.05, self._ends_at - clock.now())

    @contextmanager
    def _told(self, too_late: str) -> Iterator[None]:
        """Failures of the stream as errors of a link."""
        try:
            yield
        except protocol_errors.ProtocolError as problem:
            raise errors.LinkClosed(f"The client broke the protocol: {problem}") from problem
        except (websocket.WebSocketTimeoutException, TimeoutError) as problem:
            raise errors.NoAnswer(too_late) from problem
        except (websocket.WebSocketException, OSError) as problem:
            raise errors.LinkClosed(self._why(problem)) from problem

    def _why(self, problem: Exception) -> str:
        words = self._channel.stderr_tail()
        return f"The connection broke: {problem}" + (f" It said: {words[-300:]}" if words else "")
