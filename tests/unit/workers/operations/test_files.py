"""How many questions about files may be under way, and how their failures are told."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import pytest

from controller import errors, publish
from workers.links import errors as links
from workers.links import ssh_errors
from workers.operations import files

PERMANENT = {"login_refused", "host_key_refused", "refused", "cannot_decrypt"}


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


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (ssh_errors.LoginRefused("x"), "login_refused"),
        (ssh_errors.SecondFactor("x"), "login_refused"),
        (ssh_errors.WrongPassphrase("x"), "login_refused"),
        (ssh_errors.HostKeyChanged("x"), "host_key_refused"),
        (ssh_errors.BudgetSpent("x", pause_s=41.5), "logins_held_back"),
        (ssh_errors.HostSilent("x"), "host_unreachable"),
        (ssh_errors.RefusedBeforeBanner("x"), "host_unreachable"),
        (ssh_errors.NotSsh("x"), "refused"),
        (links.CannotConnect("cannot_decrypt", "x"), "cannot_decrypt"),
        (links.CannotConnect("no_client", "x", transient=False), "refused"),
        (links.LinkClosed("x"), "unavailable"),
        (links.NoAnswer("x"), "timeout"),
    ],
)
def test_failures_on_the_way_are_told_apart(problem: links.LinkError, code: str) -> None:
    def fail() -> dict[str, Any]:
        raise problem

    told = json.loads(json.dumps(files.answer(fail)))
    with pytest.raises(errors.HpcError, match=r"^x$") as caught:
        publish._unpacked(told)
    assert caught.value.code == code
    assert caught.value.retry_after_s == getattr(problem, "pause_s", 0)
    assert caught.value.transient == (code not in PERMANENT)
