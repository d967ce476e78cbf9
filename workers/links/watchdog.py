"""Judges silence: one thread for all links of a process, which never sends and never waits."""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from . import clock

logger = logging.getLogger(__name__)

TICK_S = 0.5
LATE_S = 2.0
"""A tick that comes so much too late tells of a frozen process: then nobody is judged."""


class Watched(Protocol):
    """A link as the watchdog sees it."""

    def silent_s(self, now: float) -> float:
        """How long nothing has come, or one send has been stuck."""

    def forgive(self, now: float) -> None:
        """Count the silence anew: it was ours."""

    def abort(self, reason: str) -> None:
        """End the transport at once."""


class Watchdog:
    """Aborts links that are silent for `deadline_s`.

    Sends block behind a stuck sender, so that pings alone find nothing: measured over a stopped
    sshd, sends go on "succeeding" for 2 MiB. Somebody must judge who takes no lock of the link.
    """

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._watched: set[Watched] = set()
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="link-watchdog", daemon=True)
        self._thread.start()

    def add(self, link: Watched) -> None:
        with self._lock:
            self._watched.add(link)

    def remove(self, link: Watched) -> None:
        with self._lock:
            self._watched.discard(link)

    def stop(self) -> None:
        self._is_stopped.set()
        self._thread.join(2)

    def _watch(self) -> None:
        last = clock.now()
        while not self._is_stopped.wait(TICK_S):
            now = clock.now()
            with self._lock:
                links = list(self._watched)
            if now - last > TICK_S + LATE_S:
                logger.warning("watchdog.was_frozen", extra={"late_s": now - last})
                for link in links:
                    link.forgive(now)
            last = now
            for link in links:
                silent_s = link.silent_s(now)
                if silent_s > self._deadline_s:
                    link.abort(f"Nothing was heard for {silent_s:.0f} s.")
