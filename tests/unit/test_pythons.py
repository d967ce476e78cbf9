"""Which interpreters the cluster client is tested under."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests import pythons


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    pythons.interpreters.cache_clear()
    yield
    pythons.interpreters.cache_clear()


def test_a_listed_interpreter_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPC_TEST_PYTHONS", f" {sys.executable} ,")
    (one,) = pythons.interpreters()
    assert str(one.path) == sys.executable
    assert one.version == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.parametrize("name", ["/no/such/python", "3.99", "python3.99", "snake"])
def test_a_listed_but_absent_interpreter_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HPC_TEST_PYTHONS", name)
    with pytest.raises(pytest.UsageError, match=name):
        pythons.interpreters()


def test_without_a_list_what_is_there_is_taken_oldest_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HPC_TEST_PYTHONS", raising=False)
    found = pythons.interpreters()
    assert found == tuple(sorted(found, key=lambda one: one.order))
    assert all((3, 9) <= one.order[:2] <= (3, 13) for one in found)
