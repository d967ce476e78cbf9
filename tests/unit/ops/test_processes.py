"""Waits that have a limit."""

from ops import processes


def test_a_wait_ends_as_soon_as_its_condition_holds():
    answers = iter([False, False, True])
    pauses: list[float] = []
    assert processes.wait_until(lambda: next(answers), 10, pauses.append)
    assert len(pauses) == 2


def test_a_wait_gives_up_at_its_limit():
    pauses: list[float] = []
    assert not processes.wait_until(lambda: False, 0, pauses.append)
    assert pauses == []
