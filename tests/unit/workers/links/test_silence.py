"""When a silent daemon is replaced."""

from workers.links import silence


def test_a_daemon_is_replaced_after_two_silences_and_seldom() -> None:
    it = silence.Silences()
    assert not it.must_force(1, 0.0)
    it.unanswered(1)
    assert not it.must_force(1, 1.0)
    it.unanswered(1)
    assert not it.must_force(2, 2.0)
    assert it.must_force(1, 2.0)
    it.unanswered(1)
    it.unanswered(1)
    assert not it.must_force(1, 601.0)
    assert it.must_force(1, 602.0)


def test_an_answer_begins_anew() -> None:
    it = silence.Silences()
    it.unanswered(1)
    it.answered(1)
    it.unanswered(1)
    assert not it.must_force(1, 0.0)
