"""Fault points are armed by name, and only by a whole one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller import errors
from workers.operations import faults


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    faults.configure("")


@pytest.mark.parametrize("value", ["worker.submit.1", "worker.submit.1:relative", ":/marker"])
def test_half_a_fault_point_is_refused(value: str) -> None:
    with pytest.raises(errors.Misconfigured, match="absolute"):
        faults.configure(value)


def test_others_are_passed_by(tmp_path: Path) -> None:
    faults.configure(f"worker.submit.1:{tmp_path / 'a'},worker.submit.2:{tmp_path / 'b'}")
    faults.reach("worker.submit.3")
    assert not list(tmp_path.iterdir())


def test_one_that_has_killed_before_does_not_kill_again(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    marker.touch()
    faults.configure(f"worker.submit.1:{marker}")
    faults.reach("worker.submit.1")
