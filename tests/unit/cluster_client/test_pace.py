from __future__ import annotations

import math

import pytest

from cluster_client import pace
from cluster_client.pace import Pace


def polled(it, now, took_s=0.01, is_idle=False, still_open=()):
    kinds = {name.split(".")[1] for name in it.hints}
    return it.succeeded(now, took_s, is_idle, kinds, still_open)


def test_the_first_query_is_due_at_once_and_the_next_after_the_interval():
    it = Pace(10, 30)
    assert it.next_at() == 0
    polled(it, 100.0)
    assert it.next_at() == 110.0


def test_a_slow_query_stretches_the_interval_and_an_idle_cluster_too():
    it = Pace(10, 30)
    polled(it, 0.0, took_s=3.0)
    assert it.next_at() == 150.0
    polled(it, 200.0, is_idle=True)
    assert it.next_at() == 230.0


def test_a_hint_brings_a_query_at_once_and_is_dropped_when_borne_out():
    it = Pace(10, 30)
    polled(it, 0.0)
    it.hint("t.exit.-.0", "exit", 1.0)
    assert it.next_at() == 1.0
    assert polled(it, 1.1) == ("t.exit.-.0",)
    assert it.next_at() == pytest.approx(11.1)


def test_a_hint_that_is_not_borne_out_is_asked_again_soon_and_not_for_ever():
    it, now, at = Pace(10, 30), 0.0, []
    polled(it, now)
    it.hint("t.exit.-.0", "exit", now)
    for _ in range(10):
        now = it.next_at()
        at.append(round(now, 3))
        if polled(it, now, still_open=("t.exit.-.0",)):
            break
        it.hint("t.exit.-.0", "exit", now)
    assert at == [0.0, 0.1, 0.3, 0.7, 1.5]
    assert it.next_at() == pytest.approx(11.5)


def test_hints_of_a_slow_scheduler_cause_one_query_in_two_seconds_after_a_burst():
    it, now, at = Pace(1000, 1000), 0.0, []
    polled(it, now, took_s=0.5)
    for number in range(pace.BURST + 3):
        it.hint(f"t{number}.exit.-.0", "exit", now)
        now = it.next_at()
        at.append(now)
        polled(it, now, took_s=0.5)
    assert at == [0.0] * pace.BURST + [2.0, 4.0, 6.0]


def test_hints_of_a_quick_scheduler_wait_less():
    it, now = Pace(1000, 1000), 0.0
    for number in range(pace.BURST):
        it.hint(f"t{number}.exit.-.0", "exit", now)
        polled(it, now, took_s=0.02)
    it.hint("u.exit.-.0", "exit", now)
    assert it.next_at() == pytest.approx(0.2)
    it.hint("u.start.-.0", "start", now)
    assert it.next_at() == 0.0


def test_failures_double_the_interval_up_to_a_cap():
    it = Pace(10, 30)
    it.hint("t.exit.-.0", "exit", 0.0)
    waits = []
    for _ in range(8):
        it.failed(0.0)
        waits.append(it.next_at())
    assert waits[:4] == [10, 20, 40, 80]
    assert waits[-1] == pace.FAILED_CAP_S
    assert it.hints == ("t.exit.-.0",)


def test_an_expected_change_is_looked_for_soon():
    it = Pace(10, 30)
    polled(it, 0.0)
    it.expect("t.cancel", 5.0)
    assert it.next_at() == pytest.approx(5.1)
    assert not math.isinf(it.next_at())
