"""One live link: the shared session, a thread that reads and a thread that writes and pings.

Requests are queued and written by one thread, so that no lock is held across a send. Whatever
breaks the protocol, a send that is stuck, or silence ends this link and no other.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any, Protocol

import websocket

from cluster_client.protocol import errors as protocol_errors
from cluster_client.protocol import messages, session

from . import carriers, clock, errors, frames, watchdog

logger = logging.getLogger(__name__)

QUEUE_LIMIT = 2000
CLOSE_LIMIT_S = 1.0


class Listener(Protocol):
    """Who is told what comes by itself; called by the link's reader: must not block."""

    def may_send(self) -> bool: ...
    def on_notice(self, message: Any) -> None: ...
    def on_closed(self, reason: str) -> None: ...


@dataclass(frozen=True)
class _Outgoing:
    data: str | bytes
    opcode: int
    request_id: int = 0
    is_fenced: bool = False
    on_sent: Callable[[], None] | None = None


class Answer:
    """A reply that is awaited."""

    def __init__(self, connection: Connection, request_id: int, deadline_s: float) -> None:
        self._connection = connection
        self._request_id = request_id
        self._deadline_s = deadline_s
        self._ends_at = clock.now() + deadline_s
        self.future: Future[Any] = Future()

    def wait(self) -> Any:
        """The reply. Raises NoAnswer at the deadline, LinkClosed, LinkMute."""
        try:
            return self.future.result(timeout=max(0.0, self._ends_at - clock.now()))
        except FutureTimeout:
            self._connection.forget(self._request_id)
            raise errors.NoAnswer(f"No answer within {self._deadline_s:g} s.") from None


class Connection:
    """A link that is open; `listener` hears of notices and of its end (once)."""

    def __init__(
        self,
        channel: carriers.Channel,
        listener: Listener,
        dog: watchdog.Watchdog,
        *,
        name: str,
        ping_interval_s: float,
        connect_limit_s: float,
        limit_bytes: int = messages.CONTROL_LIMIT_BYTES,
    ) -> None:
        self._channel = channel
        self._listener = listener
        self._dog = dog
        self._ping_interval_s = ping_interval_s
        self._frames = frames.Frames(channel, limit_bytes, connect_limit_s)
        self._lock = threading.Lock()
        self._session = session.Session(limit_bytes)
        self._answers: dict[int, Answer] = {}
        self._outgoing: deque[_Outgoing] = deque()
        self._has_outgoing = threading.Condition(self._lock)
        self._reason = ""
        self._is_closing = False
        self._is_ended = threading.Event()
        self._heard_at = clock.now()
        self._sending_since: float | None = None
        self._writer = threading.Thread(target=self._write, name=f"{name}-write", daemon=True)
        self._reader = threading.Thread(target=self._read, name=f"{name}-read", daemon=True)
        dog.add(self)
        self._writer.start()
        self._reader.start()

    # Asking -------------------------------------------------------------------------------------

    def ask(
        self,
        message: Any,
        deadline_s: float,
        *,
        is_fenced: bool = True,
        on_sent: Callable[[], None] | None = None,
    ) -> Answer:
        """Send a request; `wait` on what is returned.

        A fenced request is dropped, with LinkMute, if the listener says so at the time of
        sending. `on_sent` runs in the writing thread right after the send.
        """
        with self._lock:
            self._check_open()
            request_id = self._session.request(message, deadline_s)
            answer = Answer(self, request_id, deadline_s)
            self._answers[request_id] = answer
            self._queue_texts(request_id, is_fenced, on_sent)
        return answer

    def notify(self, message: Any) -> None:
        """Send a notice; it is dropped while the link is mute."""
        with self._lock:
            self._check_open()
            self._session.notify(message)
            self._queue_texts(0, True, None)

    def forget(self, request_id: int) -> None:
        """Stop waiting for an answer."""
        with self._lock:
            self._answers.pop(request_id, None)
            self._session.forget(request_id)

    @property
    def is_closed(self) -> bool:
        return self._is_ended.is_set()

    @property
    def asked(self) -> int:
        """How many answers are awaited."""
        with self._lock:
            return len(self._answers)

    def _check_open(self) -> None:
        if self._reason:
            raise errors.LinkClosed(self._reason)
        if len(self._outgoing) >= QUEUE_LIMIT:
            raise errors.LinkOverfull(f"{QUEUE_LIMIT} messages wait to be sent.")

    def _queue_texts(
        self, request_id: int, is_fenced: bool, on_sent: Callable[[], None] | None
    ) -> None:
        for text in self._session.texts_to_send():
            self._outgoing.append(
                _Outgoing(text, websocket.ABNF.OPCODE_TEXT, request_id, is_fenced, on_sent)
            )
        self._has_outgoing.notify()

    # Ending -------------------------------------------------------------------------------------

    def abort(self, reason: str) -> None:
        """End the transport at once; safe from any thread, never blocks."""
        if not self._reason:
            self._reason = reason
        self._channel.abort()

    def close(self, reason: str) -> None:
        """Say goodbye if that is possible within a second, then end."""
        with self._lock:
            self._reason = self._reason or reason
            self._is_closing = True
            self._has_outgoing.notify()
        if threading.current_thread() is not self._writer:
            self._writer.join(CLOSE_LIMIT_S)
        self._channel.abort()
        if threading.current_thread() is not self._reader:
            self._is_ended.wait(CLOSE_LIMIT_S)

    # The watchdog's questions -------------------------------------------------------------------

    def silent_s(self, now: float) -> float:
        stuck_since = self._sending_since
        stuck_s = now - stuck_since if stuck_since is not None else 0.0
        return max(now - self._heard_at, stuck_s)

    def forgive(self, now: float) -> None:
        self._heard_at = now
        if self._sending_since is not None:
            self._sending_since = now

    # Threads ------------------------------------------------------------------------------------

    def _write(self) -> None:
        pinged_at = clock.now()
        try:
            while not self._is_ended.is_set():
                item = self._next_outgoing(pinged_at + self._ping_interval_s - clock.now())
                if item is None:
                    item = _Outgoing(b"", websocket.ABNF.OPCODE_PING)
                    pinged_at = clock.now()
                if item.opcode == websocket.ABNF.OPCODE_CLOSE:
                    self._send(item)
                    return
                self._send_fenced(item)
        except (websocket.WebSocketException, OSError) as problem:
            self.abort(f"Sending failed: {problem}")

    def _next_outgoing(self, limit_s: float) -> _Outgoing | None:
        with self._lock:
            self._has_outgoing.wait_for(
                lambda: self._outgoing or self._is_closing, max(0.0, limit_s)
            )
            if self._outgoing:
                return self._outgoing.popleft()
            if self._is_closing:
                return _Outgoing(b"\x03\xe8", websocket.ABNF.OPCODE_CLOSE)
            return None

    def _send_fenced(self, item: _Outgoing) -> None:
        # Pings and pongs carry no authority and keep the transport alive: never fenced.
        if item.is_fenced and not self._listener.may_send():
            self._fail(item.request_id, errors.LinkMute("The lease of this link is in doubt."))
            return
        self._send(item)
        if item.on_sent is not None:
            item.on_sent()

    def _send(self, item: _Outgoing) -> None:
        self._sending_since = clock.now()
        self._frames.send(item.data, item.opcode)
        self._sending_since = None

    def _fail(self, request_id: int, problem: errors.LinkError) -> None:
        with self._lock:
            answer = self._answers.pop(request_id, None)
            self._session.forget(request_id)
        if answer is not None:
            answer.future.set_exception(problem)

    def _read(self) -> None:
        try:
            while True:
                opcode, data = self._frames.receive()
                self._heard_at = clock.now()
                if opcode == websocket.ABNF.OPCODE_PING:
                    self._queue(_Outgoing(data, websocket.ABNF.OPCODE_PONG))
                elif opcode == websocket.ABNF.OPCODE_TEXT:
                    self._receive(data)
                elif opcode == websocket.ABNF.OPCODE_BINARY:
                    raise protocol_errors.MalformedFrame("A binary frame on a control link.")
                elif opcode == websocket.ABNF.OPCODE_CLOSE:
                    self._end(f"The client closed the link: {frames.close_words(data)}.")
                    return
        except protocol_errors.ProtocolError as problem:
            logger.warning("link.protocol_broken", extra={"problem": str(problem)})
            self._end(f"The client broke the protocol: {problem}")
        except (websocket.WebSocketException, OSError) as problem:
            self._end(f"The link broke: {problem}")
        except Exception as problem:
            logger.exception("link.reader_failed")
            self._end(f"The link's reader failed: {problem!r}")

    def _queue(self, item: _Outgoing) -> None:
        with self._lock:
            if len(self._outgoing) < QUEUE_LIMIT:
                self._outgoing.append(item)
                self._has_outgoing.notify()

    def _receive(self, data: bytes) -> None:
        with self._lock:
            received = self._session.receive(data)
            if len(self._outgoing) >= QUEUE_LIMIT:
                raise protocol_errors.OutOfOrder("The client asks and does not read.")
            self._queue_texts(0, False, None)
        for item in received:
            if isinstance(item, session.Reply):
                with self._lock:
                    answer = self._answers.pop(item.to, None)
                if answer is not None:
                    answer.future.set_result(item.message)
            elif isinstance(item, session.Notice):
                self._listener.on_notice(item.message)
            else:
                raise protocol_errors.OutOfOrder(f"The client asked {type(item.message).__name__}.")

    def _end(self, reason: str) -> None:
        self._dog.remove(self)
        with self._lock:
            self._reason = reason = self._reason or reason
            waiting, self._answers = list(self._answers.values()), {}
            self._is_closing = True
            self._has_outgoing.notify()
        self._is_ended.set()
        for answer in waiting:
            answer.future.set_exception(errors.LinkClosed(reason))
        self._channel.close()
        self._listener.on_closed(reason)
