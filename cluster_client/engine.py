"""The engine of the daemon: what it does with jobs, whoever is connected.

The front (server, handlers) owns sockets and links; it calls the engine from its own threads.
All methods are thread-safe. Life: Engine(settings) -> start() -> ... -> stop().
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Optional, Union

from cluster_client.protocol import messages


@dataclass(frozen=True)
class Identity:
    """What the front knows about this installation and the greeting tells the server."""

    client_version: str = ""
    build_hash: str = ""
    scheduler_overruled: bool = False
    last_death: str = ""


class Engine:
    """Submits, watches, cancels, deletes and reports; one per state directory and generation.

    `settings` is configuration.Settings (attributes: see EngineSettings).
    """

    is_retired: threading.Event
    """Set once a newer generation has taken over: the daemon must end; its jobs go on."""

    def __init__(self, settings: Any, identity: Identity = Identity()) -> None: ...

    def start(self) -> None:
        """Take the fence, load the store, begin to watch. Returns quickly (no scheduler call).

        Raises errors.Fenced if a newer generation holds the state directory, errors.NotStored
        if the state directory can't be written, errors.SettingsError for an unknown scheduler.
        """

    def stop(self, drain_s: float = 10.0) -> None:
        """Let submissions in flight reach a stored point, then end all threads. Idempotent."""

    def welcome(self, hello: messages.Hello) -> Union[messages.Welcome, messages.Refused]:
        """Judge a greeting: instance, generation, epoch (the highest is stored).

        On Welcome, the front must drop every older control link (their epoch is lower or
        the same link greets again). Raises errors.NotStored if the epoch can't be stored.
        """
        raise NotImplementedError

    def handle(self, message: object) -> object:
        """Answer one request: Submit, Cancel, Delete or Compare; blocks, raises nothing.

        A Submit may take as long as its limit_s plus a look-up. Any other message is answered
        with Error(code="unknown_message").
        """
        raise NotImplementedError

    def events_after(self, seq: int, limit: int = 100) -> list[messages.Event]:
        """The unacknowledged events numbered above `seq`, in order; [] once retired."""
        raise NotImplementedError

    def wait_for_events(self, after_seq: int, timeout_s: float) -> bool:
        """True as soon as an event above `after_seq` exists (or the engine stops)."""
        raise NotImplementedError

    def acknowledge(self, ack: messages.Ack) -> bool:
        """Note durably that the server has committed; False (and a warning) for a foreign outbox."""
        raise NotImplementedError

    @property
    def last_poll(self) -> Optional[messages.Polled]:
        """The newest good status query; a new object each time (compare by `at`)."""
        raise NotImplementedError

    def nudge(self) -> None:
        """Look at the hints now, not at the next tick."""

    def status(self) -> dict[str, Any]:
        """For `client.py status` and the log: counts of jobs by state, events, commands run."""
        raise NotImplementedError
