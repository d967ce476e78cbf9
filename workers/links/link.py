"""A link that this process holds: its lease, its connection, its events on their way."""

from __future__ import annotations

import enum
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from cluster_client.protocol import messages

from . import clock, connection, errors, lease

logger = logging.getLogger(__name__)

EVENTS_LIMIT = 20_000
BATCH = 500
RETRY_MAX_S = 15.0


class State(enum.Enum):
    """Where a held link stands."""

    CONNECTING = "connecting"
    UP = "up"
    CLOSING = "closing"


class HeldLink:
    """One cluster's link. `commit(link, events)` stores a batch and returns the cursor.

    `post` runs a call on the writers, in this cluster's order.
    """

    def __init__(
        self,
        cluster_id: int,
        its_lease: lease.Lease,
        *,
        post: Callable[[Callable[[], None]], Any],
        commit: Callable[[HeldLink, list[messages.Event]], int],
        on_polled: Callable[[HeldLink, messages.Polled], None],
        on_lost: Callable[[HeldLink, str], None],
    ) -> None:
        self.cluster_id = cluster_id
        self.lease = its_lease
        self._state = State.CONNECTING
        self.came_up_at = 0.0
        self.swept_at = 0.0
        self._post = post
        self._commit = commit
        self._on_polled = on_polled
        self._on_lost = on_lost
        self._connection: connection.Connection | None = None
        self._lock = threading.Lock()
        self._events: deque[messages.Event] = deque()
        self._is_flushing = False
        self._failures = 0
        self._retry_at = 0.0
        self._polled_waits = False

    @property
    def state(self) -> State:
        return self._state

    def become(self, state: State, *, only_from: State | None = None) -> bool:
        """Move on; False if it was closing already, or not where `only_from` says."""
        with self._lock:
            is_elsewhere = only_from is not None and self._state is not only_from
            if self._state is State.CLOSING or is_elsewhere:
                return False
            self._state = state
            return True

    # What operations use ------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return self.lease.epoch

    @property
    def is_mute(self) -> bool:
        """Whether nothing may be sent now: not up, or the lease is in doubt."""
        return self.state is not State.UP or self.lease.is_mute(clock.now())

    def request(
        self, message: Any, deadline_s: float, on_sent: Callable[[], None] | None = None
    ) -> Any:
        """Ask the client and wait. Raises LinkMute, LinkClosed, NoAnswer, LinkOverfull."""
        return self.ask(message, deadline_s, on_sent).wait()

    def ask(
        self, message: Any, deadline_s: float, on_sent: Callable[[], None] | None = None
    ) -> connection.Answer:
        """Ask the client; `wait` on what is returned."""
        if self.is_mute:
            raise errors.LinkMute("The link is not up, or its lease is in doubt.")
        return self.wire.ask(message, deadline_s, on_sent=on_sent)

    # What the keeper uses -----------------------------------------------------------------------

    @property
    def wire(self) -> connection.Connection:
        """The connection. Raises LinkClosed where there is none."""
        wire = self._connection
        if wire is None:
            raise errors.LinkClosed("There is no connection.")
        return wire

    @property
    def is_connected(self) -> bool:
        wire = self._connection
        return wire is not None and not wire.is_closed

    def attach(self, wire: connection.Connection) -> None:
        with self._lock:
            self._connection = wire
            self._events.clear()

    def forget_events(self) -> None:
        """Before a greeting: what was not committed is sent again after it."""
        with self._lock:
            self._events.clear()

    def close(self, reason: str) -> None:
        """End the connection, if there is one."""
        wire, self._connection = self._connection, None
        if wire is not None:
            wire.close(reason)

    def abort(self, reason: str) -> None:
        """End the transport; the keeper hears of it and makes a new one."""
        wire = self._connection
        if wire is not None:
            wire.abort(reason)

    # What the connection tells ------------------------------------------------------------------

    def may_send(self) -> bool:
        return self.lease.is_sure(clock.now())

    def on_notice(self, message: Any) -> None:
        if isinstance(message, messages.Event):
            self._take_event(message)
        elif isinstance(message, messages.Polled) and not self._polled_waits:
            self._polled_waits = True  # one note at a time is enough, also in an outage
            self._post(lambda: self._note_polled(message))

    def on_closed(self, reason: str) -> None:
        self._on_lost(self, reason)

    def _note_polled(self, message: messages.Polled) -> None:
        self._polled_waits = False
        self._on_polled(self, message)

    # Events -------------------------------------------------------------------------------------

    def flush_due(self, now: float) -> None:
        """Try again to store events that a database in trouble has kept waiting."""
        if self._failures and now >= self._retry_at:
            self._start_flush()

    def _take_event(self, event: messages.Event) -> None:
        with self._lock:
            self._events.append(event)
            is_over = len(self._events) > EVENTS_LIMIT
        if is_over:
            raise errors.LinkOverfull(f"{EVENTS_LIMIT} events wait to be stored.")
        if not self._failures:
            self._start_flush()

    def _start_flush(self) -> None:
        with self._lock:
            if self._is_flushing or not self._events:
                return
            self._is_flushing = True
        self._post(self._flush)

    def _flush(self) -> None:
        try:
            while batch := self._next_batch():
                seq = self._commit(self, batch)
                self._failures = 0
                self._drop_committed(batch[0].outbox_id, seq)
                self.wire.notify(messages.Ack(batch[0].outbox_id, seq))
        except errors.LinkError as problem:
            logger.warning(
                "link.events_stopped",
                extra={"cluster_id": self.cluster_id, "problem": str(problem)},
            )
            self.abort(str(problem))
        except Exception:
            self._failures += 1
            self._retry_at = clock.now() + min(RETRY_MAX_S, 2.0 ** (self._failures - 1))
            logger.exception("link.events_not_stored", extra={"cluster_id": self.cluster_id})
        finally:
            with self._lock:
                self._is_flushing = False
                has_more = bool(self._events) and not self._failures
            if has_more:
                self._start_flush()

    def _next_batch(self) -> list[messages.Event]:
        with self._lock:
            batch: list[messages.Event] = []
            for event in self._events:
                if len(batch) == BATCH or (batch and event.outbox_id != batch[0].outbox_id):
                    break
                batch.append(event)
            return batch

    def _drop_committed(self, outbox_id: str, seq: int) -> None:
        with self._lock:
            while self._events and (
                self._events[0].outbox_id == outbox_id and self._events[0].seq <= seq
            ):
                self._events.popleft()
