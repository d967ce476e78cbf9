"""One end of a link: greeting, requests with replies, notices; no I/O and no clock.

Rules:
- The server greets with Hello; the client answers Welcome or Refused. Before that nothing else
  is legal. Hello may come again over the same link, with a higher epoch; what is under way stays.
- Every request is answered once; an answer that nobody waits for (given up, doubled) is dropped.
- A request of unknown type is answered with an error; an unknown notice or answer is ignored.
- After the greeting every frame carries the version that was agreed on.
- Events of one outbox are numbered without gaps; acknowledgements never go back. A greeting
  starts both anew.
- Whatever breaks a rule raises ProtocolError, and the caller closes this link.

A session is not thread-safe: its owner holds one lock around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

from . import codec, messages
from .errors import OutOfOrder, SequenceGap, VersionMismatch

REPLIES: dict[type, tuple[type, ...]] = {
    messages.Hello: (messages.Welcome, messages.Refused),
    messages.Submit: (messages.Submitted, messages.Rejected),
    messages.Cancel: (messages.Done,),
    messages.Delete: (messages.Deleted,),
    messages.Compare: (messages.Compared,),
    messages.List: (messages.Listed,),
    messages.Stat: (messages.Stated,),
    messages.Open: (messages.Opened,),
    messages.Put: (messages.Ready,),
    messages.Finish: (messages.Stored,),
}
"""The answers that each request may have, besides Error."""

NOTICES = (messages.Event, messages.Ack, messages.Polled, messages.End)


@dataclass(frozen=True)
class Request:
    """The other end asks; answer with `reply(id, message)` within `deadline_s` (0: no limit)."""

    id: int
    message: Any
    deadline_s: float


@dataclass(frozen=True)
class Reply:
    """The answer to the request `to`."""

    to: int
    message: Any


@dataclass(frozen=True)
class Notice:
    """A message that wants no answer."""

    message: Any


Received = Union[Request, Reply, Notice]


def common_version(ours: Sequence[int], theirs: Sequence[int]) -> Optional[int]:
    """The newest version that both ends speak, or None."""
    return max(set(ours) & set(theirs), default=None)


class Session:
    """The state of one link at one end."""

    def __init__(
        self,
        limit_bytes: int = messages.CONTROL_LIMIT_BYTES,
        versions: Sequence[int] = messages.VERSIONS,
    ) -> None:
        self.versions = tuple(versions)
        self.version = self.versions[0]
        self.is_greeted = False
        self._limit_bytes = limit_bytes
        self._last_id = 0
        self._waiting: dict[int, type] = {}
        self._unanswered: dict[int, type] = {}
        self._out: list[str] = []
        self._outbox_id = ""
        self._last_event = 0
        self._last_ack = 0

    # Sending ------------------------------------------------------------------------------------

    def request(self, message: Any, deadline_s: float) -> int:
        """Queue a request; its answer comes as Reply with this id."""
        if type(message) not in REPLIES:
            raise TypeError(f"{type(message).__name__} is not a request.")
        self._check_greeted(message)
        request_id = self._last_id + 1
        self._queue(codec.Envelope(message, id=request_id, deadline_s=deadline_s))
        self._last_id = request_id
        self._waiting[request_id] = type(message)
        return request_id

    def reply(self, to: int, message: Any) -> None:
        """Queue the answer to request `to`; a second answer is a mistake of the caller."""
        asked = self._unanswered.get(to)
        if asked is None:
            raise KeyError(f"Request {to} was answered already, or never asked.")
        if not isinstance(message, (*REPLIES[asked], messages.Error)):
            raise TypeError(f"{type(message).__name__} is no answer to {asked.__name__}.")
        if isinstance(message, messages.Welcome):
            self._agree(message.version)
        self._queue(codec.Envelope(message, reply_to=to))
        del self._unanswered[to]

    def notify(self, message: Any) -> None:
        """Queue a message that wants no answer."""
        if not isinstance(message, NOTICES):
            raise TypeError(f"{type(message).__name__} is not a notice.")
        self._check_greeted(message)
        self._queue(codec.Envelope(message))

    def forget(self, request_id: int) -> None:
        """Stop waiting for an answer; should it come, it is dropped."""
        self._waiting.pop(request_id, None)

    def texts_to_send(self) -> list[str]:
        """What is queued, in order; the queue is empty then."""
        texts, self._out = self._out, []
        return texts

    def _queue(self, envelope: codec.Envelope) -> None:
        versioned = codec.Envelope(
            envelope.message,
            id=envelope.id,
            reply_to=envelope.reply_to,
            deadline_s=envelope.deadline_s,
            version=self.version,
        )
        self._out.append(codec.encode(versioned, self._limit_bytes))

    def _check_greeted(self, message: Any) -> None:
        if not self.is_greeted and not isinstance(message, messages.Hello):
            raise OutOfOrder(f"{type(message).__name__} before the greeting.")

    def _agree(self, version: int) -> None:
        if version not in self.versions:
            raise VersionMismatch(f"Version {version} is none of {list(self.versions)}.")
        self.version = version
        self.is_greeted = True

    # Receiving ----------------------------------------------------------------------------------

    def receive(self, frame: Union[str, bytes]) -> list[Received]:
        """What the other end's `frame` means for the caller: nothing, or one item."""
        envelope = codec.decode(frame, self._limit_bytes)
        message = envelope.message
        self._check_order(envelope)
        if envelope.reply_to:
            return self._receive_reply(envelope)
        if envelope.id:
            return self._receive_request(envelope)
        if isinstance(message, codec.Unknown):
            return []
        if not isinstance(message, NOTICES):
            raise OutOfOrder(f"{type(message).__name__} came as a notice.")
        self._check_sequence(message)
        return [Notice(message)]

    def _check_order(self, envelope: codec.Envelope) -> None:
        greeting = (messages.Hello, messages.Welcome, messages.Refused)
        if isinstance(envelope.message, greeting):
            return
        if isinstance(envelope.message, messages.Error) and not self.is_greeted:
            return  # a client that can't even greet says why
        if not self.is_greeted:
            raise OutOfOrder("A message came before the greeting.")
        if envelope.version != self.version:
            raise OutOfOrder(f"Version {envelope.version} after agreeing on {self.version}.")

    def _receive_reply(self, envelope: codec.Envelope) -> list[Received]:
        message = envelope.message
        asked = self._waiting.pop(envelope.reply_to, None)
        if asked is None or isinstance(message, codec.Unknown):
            return []
        if not isinstance(message, (*REPLIES[asked], messages.Error)):
            raise OutOfOrder(f"{type(message).__name__} answers {asked.__name__}.")
        if isinstance(message, messages.Welcome):
            self._agree(message.version)
            self._last_event = 0  # events start anew after the Ack that follows
        return [Reply(envelope.reply_to, message)]

    def _receive_request(self, envelope: codec.Envelope) -> list[Received]:
        message = envelope.message
        if envelope.id in self._unanswered:
            raise OutOfOrder(f"Request {envelope.id} came twice.")
        if isinstance(message, codec.Unknown):
            error = messages.Error("unknown_message", f"{message.type[:64]!r} is not known here.")
            self._queue(codec.Envelope(error, reply_to=envelope.id))
            return []
        if type(message) not in REPLIES:
            raise OutOfOrder(f"{type(message).__name__} came as a request.")
        self._unanswered[envelope.id] = type(message)
        if isinstance(message, messages.Hello):
            self._last_ack = 0
        return [Request(envelope.id, message, envelope.deadline_s)]

    def _check_sequence(self, message: Any) -> None:
        if isinstance(message, messages.Event):
            is_first = message.outbox_id != self._outbox_id or not self._last_event
            if not is_first and message.seq != self._last_event + 1:
                raise SequenceGap(f"Event {message.seq} came after {self._last_event}.")
            self._outbox_id, self._last_event = message.outbox_id, message.seq
        elif isinstance(message, messages.Ack):
            if message.outbox_id == self._outbox_id and message.seq < self._last_ack:
                raise OutOfOrder(f"Ack {message.seq} came after {self._last_ack}.")
            self._outbox_id, self._last_ack = message.outbox_id, message.seq
