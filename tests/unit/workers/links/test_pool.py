"""Calls of one key keep their order; keys do not wait for each other."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from workers.links import errors, pool


@pytest.fixture
def two() -> Iterator[pool.KeyedPool]:
    made = pool.KeyedPool("test", 2)
    yield made
    assert made.close(5)


def test_calls_of_one_key_keep_their_order(two: pool.KeyedPool) -> None:
    seen: list[int] = []
    futures = [two.post("a", lambda n=n: seen.append(n)) for n in range(200)]
    for future in futures:
        future.result(5)
    assert seen == list(range(200))


def test_a_stuck_key_does_not_hold_up_another(two: pool.KeyedPool) -> None:
    gate = threading.Event()
    stuck = two.post("a", lambda: gate.wait(5))
    assert two.call("b", lambda: 7, 5) == 7
    gate.set()
    assert stuck.result(5)


def test_an_exception_reaches_the_caller_and_the_thread_goes_on(two: pool.KeyedPool) -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        two.call("a", fail, 5)
    assert two.call("a", lambda: 1, 5) == 1


def test_one_key_can_not_pile_up_without_bound(two: pool.KeyedPool) -> None:
    gate = threading.Event()
    two.post("a", lambda: gate.wait(5))
    with pytest.raises(errors.LinkOverfull):
        for _ in range(pool.LIMIT_PER_KEY + 2):
            two.post("a", lambda: None)
    gate.set()


def test_tidy_runs_around_each_call() -> None:
    tidied: list[int] = []
    made = pool.KeyedPool("test", 1, lambda: tidied.append(1))
    made.call("a", lambda: None, 5)
    assert made.close(5)
    assert len(tidied) == 2


def test_after_close_a_call_is_cancelled_at_once() -> None:
    made = pool.KeyedPool("test", 1)
    assert made.close(5)
    assert made.post("a", lambda: None).cancelled()
