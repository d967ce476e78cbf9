"""When a daemon that takes connections and never answers must be replaced; PURE.

A frozen or hung process still has its listening socket, so that dialling finds it. After
SILENCES_MOST tries without an answer a new generation is started, at most once in PAUSE_S; should
the old daemon wake up, it reads the fence and retires.
"""

from __future__ import annotations

SILENCES_MOST = 2
PAUSE_S = 600.0


class Silences:
    """Tries without an answer, by cluster; each cluster is tried by one thread at a time."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._forced_at: dict[int, float] = {}

    def unanswered(self, cluster_id: int) -> None:
        """A connection was taken, and nobody answered on it."""
        self._counts[cluster_id] = self._counts.get(cluster_id, 0) + 1

    def answered(self, cluster_id: int) -> None:
        """The daemon answers."""
        self._counts.pop(cluster_id, None)

    def must_force(self, cluster_id: int, now: float) -> bool:
        """Whether the next try shall start a daemon anew; `now` in monotonic seconds."""
        if self._counts.get(cluster_id, 0) < SILENCES_MOST:
            return False
        if now - self._forced_at.get(cluster_id, -PAUSE_S) < PAUSE_S:
            return False
        self._forced_at[cluster_id] = now
        self._counts.pop(cluster_id, None)
        return True
