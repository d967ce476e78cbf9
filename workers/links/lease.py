"""When a lease may be relied on, and when to try again: pure rules, judged by a given clock.

Rules:
- A lease is sure for `mute_s` after the START of its last good renewal, which is less than the
  time to live in the database: whoever thaws late finds it in doubt before anyone confirms it.
- A lease that was in doubt is used again only after a new greeting over its link.
"""

from __future__ import annotations

import random
import threading


class Lease:
    """One cluster's lease as its holder knows it. Thread-safe."""

    def __init__(self, epoch: int, confirmed_at: float, mute_s: float) -> None:
        self._lock = threading.Lock()
        self._epoch = epoch
        self._confirmed_at = confirmed_at
        self._mute_s = mute_s
        self._needs_greeting = True

    @property
    def epoch(self) -> int:
        return self._epoch

    def is_sure(self, now: float) -> bool:
        """Whether the lease can't have passed to another holder."""
        return now - self._confirmed_at < self._mute_s

    def is_mute(self, now: float) -> bool:
        """Whether requests must wait: in doubt, or not greeted since it was."""
        return self._needs_greeting or not self.is_sure(now)

    def confirm(self, started_at: float, now: float, epoch: int | None = None) -> bool:
        """Note a renewal that began at `started_at`; True if the link must greet again."""
        with self._lock:
            was_sure = self.is_sure(now)
            self._confirmed_at = max(self._confirmed_at, started_at)
            if not was_sure or (epoch is not None and epoch != self._epoch):
                self._needs_greeting = True
            if epoch is not None:
                self._epoch = epoch
            return self._needs_greeting

    def greeted(self, epoch: int) -> None:
        """Note that the client has accepted `epoch`."""
        with self._lock:
            if epoch == self._epoch:
                self._needs_greeting = False


def retry_delay_s(failures: int, min_s: float, max_s: float, spread: float | None = None) -> float:
    """The pause after the `failures`-th failure in a row: doubling, capped, with jitter.

    `spread` in [0, 1) replaces the random number; the pause is between half of and the whole step.
    """
    step_s = min(max_s, min_s * 2.0 ** min(failures - 1, 32))
    share = random.random() if spread is None else spread  # noqa: S311 - jitter, no secret
    return step_s * (0.5 + share / 2)


def is_above_share(held: int, share: int) -> bool:
    """Whether a link is to be released: one at a time, until none is above the share."""
    return held > share


def to_take(held: int, share: int) -> int:
    """How many more links to acquire."""
    return max(0, share - held)
