"""The clock by which links and leases are judged."""

from __future__ import annotations

import time


def now() -> float:
    """Seconds that only grow, and that go on while the machine is suspended.

    time.monotonic() stands still in a suspended machine, whose leases meanwhile expire.
    Source: clock_gettime(2), CLOCK_BOOTTIME.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)
