"""Control links: a protocol session on one side, the engine on the other.

Rules:
- One link is the current one. A greeting with the highest epoch seen takes over, and the older
  link is dropped; so does a second link with the same epoch, whose first one may be dead.
- Requests run on the pools of the daemon; each link may have a bounded number under way.
- Events flow from the first acknowledgement after each greeting, in order, at most WINDOW ahead
  of what is acknowledged.
- One thread reads, one writes, one moves events. No lock is held while any of them waits for
  the other end.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from typing import Optional, Protocol, Union

from websockets.exceptions import ConnectionClosed

from . import errors
from .hub import Hub
from .protocol import messages
from .protocol.errors import FrameTooLarge, ProtocolError
from .protocol.session import Notice, Request, Session, common_version

logger = logging.getLogger(__name__)

GREETING_LIMIT_S = 20.0
WINDOW = 500
BATCH = 100
REQUESTS_LIMIT = 64
REPLIES_LIMIT = 256
EVENT_WAIT_S = 1.0
FAREWELL_LIMIT_S = 2.0

PROTOCOL_ERROR = 1002
GOING_AWAY = 1001


class Socket(Protocol):
    """A WebSocket, over whatever carries it; all but `drop` raise ConnectionClosed."""

    def recv(self, timeout: Optional[float] = None) -> Union[str, bytes]: ...

    def send(self, message: Union[str, bytes]) -> None: ...

    def close(self, code: int = 1000, reason: str = "") -> None: ...

    def drop(self) -> None:
        """End it now, without a word, also under a sender that is stuck."""


def serve(hub: Hub, socket: Socket) -> None:
    """Run a link over `socket` until it ends."""
    hub.run(ControlLink(hub, socket))


class ControlLink:
    """One connection of the server."""

    def __init__(self, hub: Hub, socket: Socket) -> None:
        self._hub = hub
        self._engine = hub.engine
        self._socket = socket
        self._session = Session(messages.CONTROL_LIMIT_BYTES)
        self._changed = threading.Condition()
        self._is_closed = False
        self._queued = 0
        self._is_written = True
        self._pending = 0
        self._outbox_id = ""
        self._flow = Flow()

    def run(self) -> None:
        """Read until the link ends."""
        threads = [
            threading.Thread(target=self._write, name="link-writer", daemon=True),
            threading.Thread(target=self._move_events, name="link-events", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            self._read()
        except ProtocolError as error:
            logger.warning("link_broke_protocol", extra={"code": error.code, "why": str(error)})
            self._close(PROTOCOL_ERROR, error.code)
        except TimeoutError:
            logger.warning("link_not_greeted")
            self._close(PROTOCOL_ERROR, "no greeting")
        except ConnectionClosed as error:
            logger.info("link_ended", extra={"why": str(error)})
        finally:
            self.drop()

    def drop(self) -> None:
        """End the link now."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._socket.drop()

    def say_goodbye(self) -> None:
        """End the link because the daemon ends, after what it has still to say."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._is_written, FAREWELL_LIMIT_S)
        self._close(GOING_AWAY, "the daemon ends")
        self.drop()

    def _close(self, code: int, reason: str) -> None:
        try:
            self._socket.close(code, reason)
        except ConnectionClosed:
            logger.debug("link_closed_already")

    # Reading ------------------------------------------------------------------------------------

    def _read(self) -> None:
        greeted_by = time.monotonic() + GREETING_LIMIT_S
        while True:
            if self._session.is_greeted:
                frame = self._socket.recv()
            else:
                frame = self._socket.recv(max(0.0, greeted_by - time.monotonic()))
            with self._changed:
                items = self._session.receive(frame)
                for item in items:
                    if isinstance(item, Request) and isinstance(item.message, messages.Hello):
                        self._flow = Flow()
                if not items:
                    self._has_output()  # the session may have answered by itself
            for item in items:
                if isinstance(item, Request):
                    self._take_request(item)
                elif isinstance(item, Notice):
                    self._take_notice(item.message)
            with self._changed:  # a peer that asks and never reads is not read either
                self._changed.wait_for(lambda: self._is_closed or self._queued < REPLIES_LIMIT)

    def _take_request(self, request: Request) -> None:
        if isinstance(request.message, messages.Hello):
            self._reply(request, self._greet(request.message))
            return
        with self._changed:
            is_over = self._pending >= REQUESTS_LIMIT
            self._pending += 1
        asked_at = time.monotonic()
        pool = self._hub.pool_for(request.message)
        if is_over or not pool.submit(lambda: self._answer(request, asked_at)):
            error = messages.Error("busy", "Too many requests are under way here.", transient=True)
            self._finish(request, error)

    def _take_notice(self, message: object) -> None:
        if not isinstance(message, messages.Ack):
            return
        try:
            is_ours = self._engine.acknowledge(message)
        except errors.ClientError as error:
            # Not noted: after a restart these events go out again, and the server drops them.
            logger.warning("ack_not_stored", extra={"why": str(error)})
            is_ours = message.outbox_id == self._outbox_id
        if is_ours:
            with self._changed:
                self._flow.acknowledge(message.seq)
                self._changed.notify_all()

    def _answer(self, request: Request, asked_at: float) -> None:
        """Carry out a request; runs on a pool's thread."""
        took_s = time.monotonic() - asked_at
        if self._is_closed:
            return
        if request.deadline_s and took_s > request.deadline_s:
            error = messages.Error("deadline", "The request waited for too long.", transient=True)
            self._finish(request, error)
            return
        try:
            answer = self._engine.handle(request.message)
        except Exception:
            logger.exception("request_failed")
            answer = messages.Error("internal", "The client failed; its log says why.", True)
        self._finish(request, answer)

    # Greeting -----------------------------------------------------------------------------------

    def _greet(self, hello: messages.Hello) -> object:
        version = common_version(messages.VERSIONS, hello.versions)
        if version is None:
            return messages.Refused(
                "version_mismatch",
                f"This client speaks protocol {list(messages.VERSIONS)}, "
                f"the server {list(hello.versions)}.",
            )
        if hello.purpose != messages.CONTROL:
            return messages.Error("wrong_purpose", "This link is for control, not for files.")
        try:
            answer = self._engine.welcome(hello)
        except errors.NotStored as error:
            return messages.Error(error.reason, str(error), error.transient)
        except errors.ClientError as error:
            return messages.Error(error.code, str(error), error.transient)
        if isinstance(answer, messages.Refused):
            logger.warning("link_refused", extra={"code": answer.code, "epoch": hello.epoch})
            return answer
        if not self._hub.take_over(self, hello.epoch):
            return messages.Refused(
                "stale_epoch",
                "A link with a higher epoch greeted at the same time.",
                self._hub.status()["epoch"],
                answer.generation,
            )
        self._outbox_id = answer.outbox_id
        logger.info("link_greeted", extra={"epoch": hello.epoch, "outbox_id": answer.outbox_id})
        return dataclasses.replace(answer, version=version)

    # Writing ------------------------------------------------------------------------------------

    def _finish(self, request: Request, answer: object) -> None:
        self._reply(request, answer)
        with self._changed:
            self._pending -= 1

    def _reply(self, request: Request, answer: object) -> None:
        with self._changed:
            if self._is_closed:
                return
            try:
                self._session.reply(request.id, answer)
            except FrameTooLarge as error:
                logger.exception("reply_too_large")
                self._session.reply(request.id, messages.Error(error.code, str(error)))
            self._has_output()

    def _has_output(self) -> None:
        self._queued += 1
        self._is_written = False
        self._changed.notify_all()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._is_written = not self._queued
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._is_closed or self._queued)
                if self._is_closed:
                    return
                texts = self._session.texts_to_send()
                self._queued = 0
            try:
                for text in texts:
                    self._socket.send(text)
            except ConnectionClosed:
                self.drop()
                return

    # Events -------------------------------------------------------------------------------------

    def _move_events(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._flow.room() > 0)
                if self._is_closed:
                    return
                flow, after, limit = self._flow, self._flow.sent, min(BATCH, self._flow.room())
            events = self._engine.events_after(after, limit)
            try:
                self._send_events(flow, events)
            except ProtocolError:
                logger.exception("event_not_sendable")
                self.drop()
                return
            if not events and self._engine.wait_for_events(after, EVENT_WAIT_S):
                self._rest_if_stopped(after)

    def _rest_if_stopped(self, after: int) -> None:
        """An engine that stops has nothing more and waits no longer: do not spin."""
        if not self._engine.events_after(after, 1):
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed, EVENT_WAIT_S)

    def _send_events(self, flow: Flow, events: list[messages.Event]) -> None:
        poll = self._engine.last_poll
        with self._changed:
            if self._is_closed or flow is not self._flow:
                return  # greeted anew meanwhile: these may be others' numbers
            if poll is not None and poll.at != flow.polled_at:
                flow.polled_at = poll.at
                self._session.notify(poll)
                self._has_output()
            for event in events:
                self._session.notify(event)
                flow.sent = event.seq
            if events:
                self._has_output()


class Flow:
    """How far events have gone since the last greeting."""

    def __init__(self) -> None:
        self.is_open = False
        self.sent = 0
        self.polled_at = 0.0
        self._acknowledged = 0

    def acknowledge(self, seq: int) -> None:
        """The server has everything up to `seq`; the first time it says where to begin."""
        if not self.is_open:
            self.is_open, self.sent = True, seq
        self._acknowledged = max(self._acknowledged, seq)

    def room(self) -> int:
        """How many more events may be sent now."""
        return WINDOW - (self.sent - self._acknowledged) if self.is_open else 0
