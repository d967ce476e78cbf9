"""Leases are judged by a clock that is given."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.links import lease


def make(confirmed_at: float = 100.0, epoch: int = 1) -> lease.Lease:
    made = lease.Lease(epoch, confirmed_at, mute_s=7.0)
    made.greeted(epoch)
    return made


def test_a_fresh_lease_is_mute_until_it_has_greeted() -> None:
    fresh = lease.Lease(1, 100.0, mute_s=7.0)
    assert fresh.is_sure(101)
    assert fresh.is_mute(101)
    fresh.greeted(1)
    assert not fresh.is_mute(101)


def test_it_goes_mute_after_the_start_of_the_last_renewal() -> None:
    held = make()
    assert not held.is_mute(106.9)
    assert held.is_mute(107)


def test_a_renewal_counts_from_its_start_not_from_its_answer() -> None:
    held = make()
    held.confirm(started_at=103, now=106)
    assert not held.is_mute(109)
    assert held.is_mute(110)


def test_a_renewal_that_began_before_a_freeze_does_not_unmute_after_it() -> None:
    held = make()
    assert held.confirm(started_at=101, now=130)
    assert not held.is_sure(130)


def test_a_renewal_in_time_asks_for_no_greeting() -> None:
    assert not make().confirm(started_at=103, now=103.1)


def test_a_renewal_too_late_asks_for_a_greeting_and_stays_mute_until_then() -> None:
    held = make()
    assert held.confirm(started_at=120, now=120.1)
    assert held.is_sure(120.2)
    assert held.is_mute(120.2)
    held.greeted(1)
    assert not held.is_mute(120.2)


def test_a_new_epoch_asks_for_a_greeting() -> None:
    held = make()
    assert held.confirm(started_at=101, now=101, epoch=2)
    assert held.epoch == 2
    held.greeted(1)
    assert held.is_mute(102), "the greeting of an old epoch counts for nothing"
    held.greeted(2)
    assert not held.is_mute(102)


def test_an_older_renewal_never_takes_sureness_away() -> None:
    held = make()
    held.confirm(started_at=105, now=105)
    held.confirm(started_at=101, now=105)
    assert held.is_sure(111)


@given(
    st.integers(min_value=1, max_value=10_000),
    st.floats(min_value=0, max_value=0.999),
)
def test_pauses_are_bounded(failures: int, spread: float) -> None:
    pause = lease.retry_delay_s(failures, 1.0, 300.0, spread)
    assert 0.5 <= pause <= 300.0


def test_pauses_double_up_to_the_cap() -> None:
    pauses = [lease.retry_delay_s(n, 1.0, 300.0, spread=1.0) for n in range(1, 12)]
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == 300


def test_a_worker_above_its_share_gives_up_and_below_it_takes() -> None:
    assert (lease.is_above_share(5, 3), lease.to_take(5, 3)) == (True, 0)
    assert (lease.is_above_share(2, 3), lease.to_take(2, 3)) == (False, 1)
    assert (lease.is_above_share(3, 3), lease.to_take(3, 3)) == (False, 0)
