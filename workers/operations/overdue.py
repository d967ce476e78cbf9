"""Does what was asked for and whose nudge was lost: one worker at a time, beside its sweeps."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import connections

from controller.models import Kind
from controller.services import clusters, procedures

from . import connection_test, host_keys, wishes

logger = logging.getLogger(__name__)

OVERDUE_S = 5.0
"""A nudge that comes at all comes sooner."""


class Overdue:
    """Looks after procedures that wait; on a thread of its own, because each may take a minute."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def see_to(self) -> None:
        """Begin to do what waits, unless that is under way; called by one thread."""
        if self._thread is not None and self._thread.is_alive():
            return
        waiting = procedures.waiting(list(Kind), OVERDUE_S)
        if not waiting:
            return
        self._thread = threading.Thread(
            target=self._run, args=(waiting,), name="hpc-overdue", daemon=True
        )
        self._thread.start()

    def _run(self, waiting: list[tuple[int, int, str]]) -> None:
        try:
            for _, cluster_id, kind in waiting:
                self._do(cluster_id, DOERS[Kind(kind)])
        finally:
            connections.close_all()

    def _do(self, cluster_id: int, doer: Callable[[int], object]) -> None:
        try:
            doer(cluster_id)
        except Exception:
            logger.exception("overdue.failed", extra={"cluster_id": cluster_id})


def _bootstrap(cluster_id: int) -> None:
    """Ask for it again: whoever holds the link may have met the request before it was made."""
    clusters.request_bootstrap(cluster_id)
    wishes.bootstrap(cluster_id)


DOERS: dict[Kind, Callable[[int], object]] = {
    Kind.HOST_KEYS: host_keys.fetch,
    Kind.TEST: connection_test.test,
    Kind.BOOTSTRAP: _bootstrap,
}
