"""How many questions about files may be under way."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from controller import errors
from workers.operations import files


def test_a_cluster_has_so_many_seats_and_no_more() -> None:
    seats = files.Seats()
    with ExitStack() as taken:
        for _ in range(3):
            taken.enter_context(seats.taken(1, 3))
        with pytest.raises(errors.Busy, match="HPC_FILES_PARALLEL"), seats.taken(1, 3):
            pass
        with seats.taken(2, 3):
            pass
    with seats.taken(1, 1):
        pass


def test_a_question_that_fails_gives_its_seat_back() -> None:
    seats = files.Seats()
    with pytest.raises(ValueError, match="x"), seats.taken(1, 1):
        raise ValueError("x")
    with seats.taken(1, 1):
        pass


def test_busy_is_answered_as_passing_with_a_sentence() -> None:
    seats = files.Seats()

    def ask() -> dict[str, object]:
        with seats.taken(1, 0):
            return {}

    told = files.answer(ask)["error"]
    assert (told["code"], told["transient"]) == ("busy", True)
    assert told["message"].endswith("ask again in a moment.")
