"""When to ask the scheduler next; PURE: the caller brings the clock (monotonic seconds).

Rules:
- interval = max(the setting, 50 x the query's duration); the idle one when nothing runs.
- A hint brings the next query forward. Per kind of hint BURST queries come at once; then one in
  10 x the query's duration, at most COALESCE_S. So a slow scheduler is asked once in 2 s, a quick
  one soon enough for jobs that follow each other.
- When a query still shows a hinted job as before, the next ones follow after 0.1, 0.2, 0.4 and
  0.8 s; then the hint is forgotten, and the interval counts.
- After a failed query the interval doubles, up to FAILED_CAP_S.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

COALESCE_S = 2.0
BURST = 8
FIRST_RETRY_S = 0.1
RETRIES = 4
FAILED_CAP_S = 300.0
_LOAD_FACTOR = 50
_HINT_LOAD_FACTOR = 10


@dataclass
class _Allowance:
    """What is left of the queries that one kind of hint may cause."""

    left: float = BURST
    at: float = 0.0

    def refill(self, now: float, per_query_s: float) -> None:
        self.left = min(float(BURST), self.left + (now - self.at) / per_query_s)
        self.at = now


class Pace:
    def __init__(self, interval_s: float, idle_interval_s: float) -> None:
        self._interval_s = interval_s
        self._idle_interval_s = idle_interval_s
        self._regular_at = 0.0
        self._hinted_at = math.inf
        self._took_s = 0.0
        self._allowances: dict[str, _Allowance] = {}
        self._tries: dict[str, int] = {}
        self._failures = 0

    @property
    def hints(self) -> tuple[str, ...]:
        """Names of the hints that are still waited for."""
        return tuple(self._tries)

    def next_at(self) -> float:
        return min(self._regular_at, self._hinted_at)

    def hint(self, name: str, kind: str, now: float) -> None:
        """A new hint was found; one that is known changes nothing."""
        if name in self._tries:
            return
        self._tries[name] = 0
        per_query_s = self._per_query_s()
        allowance = self._allowances.setdefault(kind, _Allowance(at=now))
        allowance.refill(now, per_query_s)
        wait_s = max(0.0, 1.0 - allowance.left) * per_query_s
        self._hinted_at = min(self._hinted_at, now + wait_s)

    def _per_query_s(self) -> float:
        return min(COALESCE_S, max(0.01, _HINT_LOAD_FACTOR * self._took_s))

    def expect(self, name: str, now: float) -> None:
        """Something was done whose effect is soon to be seen: as a hint whose query was early."""
        self._tries[name] = 1
        self._hinted_at = min(self._hinted_at, now + FIRST_RETRY_S)

    def succeeded(
        self, now: float, took_s: float, is_idle: bool, kinds: Iterable[str], open_: Iterable[str]
    ) -> tuple[str, ...]:
        """A query has answered. `kinds`: of the hints that it was asked for; `open_`: the hints
        that it does not bear out yet. Returns the names that need not be kept any longer.
        """
        self._failures = 0
        self._took_s = took_s
        interval_s = self._idle_interval_s if is_idle else self._interval_s
        self._regular_at = now + max(interval_s, _LOAD_FACTOR * took_s)
        for kind in kinds:
            allowance = self._allowances.setdefault(kind, _Allowance(at=now))
            allowance.refill(now, self._per_query_s())
            allowance.left -= 1.0
        still_open = set(open_)
        retried = {
            name: tries + 1
            for name, tries in self._tries.items()
            if name in still_open and tries < RETRIES
        }
        dropped = tuple(name for name in self._tries if name not in retried)
        self._tries = retried
        waits = [FIRST_RETRY_S * 2 ** (tries - 1) for tries in retried.values()]
        self._hinted_at = now + min(waits) if waits else math.inf
        return dropped

    def failed(self, now: float) -> None:
        """Nothing was learned; hints stay."""
        self._failures += 1
        wait_s = min(FAILED_CAP_S, self._interval_s * 2.0 ** min(self._failures - 1, 16))
        self._regular_at = now + wait_s
        self._hinted_at = math.inf
