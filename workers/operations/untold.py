"""Outcomes of logins that the database did not take in their turn: a refusal is not forgotten."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import connections

from ..links import clock

logger = logging.getLogger(__name__)

LIMIT_S = 3.0
"""How long the end of a process waits for them."""


class Untold:
    """What is to be told yet, by cluster. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: dict[int, list[Callable[[], None]]] = {}
        self._tellers = 0

    def keep(self, cluster_id: int, call: Callable[[], None]) -> None:
        """Have `call` made later."""
        with self._changed:
            self._calls.setdefault(cluster_id, []).append(call)

    def tell(self, cluster_id: int) -> None:
        """Tell them now, on a thread that may use the database. Raises what the database does."""
        with self._changed:
            calls = self._calls.pop(cluster_id, [])
            self._tellers += 1
        try:
            while calls:
                calls[0]()
                del calls[0]
        finally:
            with self._changed:
                if calls:
                    self._calls[cluster_id] = calls + self._calls.get(cluster_id, [])
                self._tellers -= 1
                self._changed.notify_all()

    def tell_all(self) -> None:
        """Tell everything, on a thread that uses the database for nothing else. Raises nothing."""
        with self._changed:
            cluster_ids = list(self._calls)
        for cluster_id in cluster_ids:
            try:
                self.tell(cluster_id)
            except Exception:
                logger.exception("login.outcome_not_stored", extra={"cluster_id": cluster_id})
        connections.close_all()

    def last_words(self, limit_s: float = LIMIT_S) -> None:
        """Tell everything before the process ends, within `limit_s`. Raises nothing."""
        ends_at = clock.now() + limit_s
        with self._changed:
            if not self._calls and not self._tellers:
                return
        thread = threading.Thread(target=self.tell_all, name="hpc-last-words", daemon=True)
        thread.start()
        thread.join(limit_s)
        with self._changed:
            self._changed.wait_for(lambda: not self._tellers, max(0.0, ends_at - clock.now()))
            if self._calls or self._tellers:
                logger.error("login.outcomes_lost", extra={"clusters": sorted(self._calls)})


untold = Untold()
