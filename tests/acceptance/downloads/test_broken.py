"""Downloads that break, at each point of their way: the browser sees it, and nothing goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from .house import BROKEN, LIMIT_S, LONG_BYTES, MIB, House, Portal

pytestmark = pytest.mark.timeout(240)

LEFT_LIMIT_S = 6.0
"""Until nobody reads for somebody who left: three times the goal."""


def end_readers(house: House, path: Path) -> None:
    for pid in house.readers_of(path):
        os.kill(pid, signal.SIGKILL)


def cut_connection(house: House, path: Path) -> None:
    pids = [house.session_of(pid) for pid in house.readers_of(path)]
    for pid in {one for session in pids for one in session}:
        os.kill(pid, signal.SIGKILL)


def kill_worker(house: House, path: Path) -> None:
    house.files_worker.send(signal.SIGKILL)
    house.stack.wait(lambda: house.files_worker.has_ended, "the worker to end")


def stop_worker(house: House, path: Path) -> None:
    house.stack.stop_worker(house.files_worker, LIMIT_S)


def shrink(house: House, path: Path) -> None:
    os.truncate(path, 2 * MIB)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (end_readers, ""),
        (cut_connection, ""),
        (shrink, "shr"),
        (kill_worker, ""),
        (stop_worker, "worker was stopped"),
    ],
)
def test_transfer_that_breaks_is_seen_to_be_broken(
    ready: Portal, fault: Callable[[House, Path], None], words: str
) -> None:
    house = ready.house
    path = house.put("long", b"begin", LONG_BYTES)
    readers = ready.open("long")
    for reader in readers:
        reader.read(MIB)
    assert len(house.readers_of(path)) == len(readers)
    fault(house, path)
    for reader in readers:
        with closing(reader), pytest.raises(BROKEN):
            reader.read_all()
    for row in house.wait_states(2, "failed"):
        assert words in row.failure
        assert row.failure.endswith("."), row.failure


def test_nothing_is_read_for_somebody_who_left(
    ready: Portal, capsys: pytest.CaptureFixture[str]
) -> None:
    house = ready.house
    path = house.put("long", b"begin", LONG_BYTES)
    readers = ready.open("long")
    for reader in readers:
        reader.read(MIB)
    assert len(house.readers_of(path)) == len(readers)
    left_at = time.monotonic()
    for reader in readers:
        reader.close()
    house.stack.wait(lambda: not house.readers_of(path), "the readers to stop", LEFT_LIMIT_S)
    took_s = time.monotonic() - left_at
    with capsys.disabled():
        print(f"\nnothing is read {took_s:.1f} s after the browsers have left")  # noqa: T201
    house.wait_states(2, "cancelled")
