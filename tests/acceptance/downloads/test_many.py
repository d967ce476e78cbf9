"""Many downloads at once: they hold up nothing else, and there are not too many."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from controller.lifecycle import JobStatus

from .house import LONG_BYTES, House, Portal

pytestmark = pytest.mark.timeout(240)

STALLED = 20
MOST = 24
"""HPC_TRANSFERS_PER_CLUSTER, as it is by default."""


def test_stalled_downloads_hold_up_nothing_else(
    ready: Portal, capsys: pytest.CaptureFixture[str]
) -> None:
    house = ready.house
    path = house.put("long", b"begin", LONG_BYTES)
    house.stack.wait_up(house.cluster)
    alone_s = submitted_after_s(house)
    with ThreadPoolExecutor(4) as pool:
        urls = [f"/async/{house.job.pk}/long"] * MOST
        readers = list(pool.map(ready.asgi.open, urls[:STALLED]))
        assert [reader.status for reader in readers] == [200] * STALLED
        beside_s = submitted_after_s(house)
        listed = ready.wsgi.open(f"/list/{house.job.pk}/")
        assert b'"long"' in listed.response.read()
        readers += pool.map(ready.asgi.open, urls[STALLED:])
    assert [reader.status for reader in readers] == [200] * MOST
    refused = ready.wsgi.open(f"/sync/{house.job.pk}/long")
    assert int(refused.response.headers["Retry-After"]) >= 1
    assert refused.problem()[:2] == (503, "busy")
    for reader in (*readers, listed):
        reader.close()
    house.stack.wait(lambda: not house.readers_of(path), "the readers to stop")
    house.wait_states(MOST, "cancelled")
    with capsys.disabled():
        print(f"\nsubmitted after {alone_s:.3f} s, beside {STALLED} downloads {beside_s:.3f} s")  # noqa: T201
    assert beside_s < 3 * alone_s + 1, (alone_s, beside_s)


def submitted_after_s(house: House, count: int = 7) -> float:
    """The median time from submit to SUBMITTED."""
    took = []
    for _ in range(count):
        begun_at = time.monotonic()
        job = house.stack.submit(house.cluster)
        job = house.stack.wait_status(
            job, JobStatus.SUBMITTED, JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.COMPLETED
        )
        took.append(time.monotonic() - begun_at)
    return statistics.median(took)
