"""When a connection for files is shared, made anew, given up and closed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from controller import errors as controller_errors
from ops import processes
from workers.links import clock, errors, ssh_carrier, ssh_errors
from workers.operations import data_carriers
from workers.operations.data_carriers import Place

LIMIT = float("inf")


class Carrier:
    """Logs in when it is asked and has no connection."""

    def __init__(self) -> None:
        self.connections = 0
        self.logins = 0
        self.address = ""
        self.is_closed = False
        self.problem: ssh_errors.LoginError | None = None
        self.spares: list[Any] = []
        self.wishes: list[ssh_carrier.Wish] = []

    def keep(self, spare: Any) -> None:
        self.spares.append(spare)

    def take_spare(self) -> Any:
        return self.spares.pop() if self.spares else None

    def open(self, argv: Any, ends_at: float, wish: ssh_carrier.Wish) -> Any:
        self.wishes.append(wish)
        if not self.connections:
            self.logins += 1
            if self.problem:
                raise self.problem
            self.connections, self.address = 1, "10.0.0.1"

    def close(self) -> None:
        self.connections, self.is_closed = 0, True


class Site:
    """Rows that change, and the carriers made from them."""

    def __init__(self) -> None:
        self.place = Place(("host", "key"))
        self.made: list[Carrier] = []
        self.idle_s = 3600.0
        self.problems: list[ssh_errors.LoginError | None] = []
        self.carriers: data_carriers.DataCarriers[str] = data_carriers.DataCarriers(
            lambda _: self.place,
            self._make,
            lambda: self.idle_s,
        )

    def _make(self, cluster_id: int) -> Any:
        made = Carrier()
        made.problem = self.problems.pop(0) if self.problems else None
        self.made.append(made)
        return "plan", made

    def ask(
        self,
        question: Callable[[Any], Any] = lambda carrier: None,
        ends_at: float = LIMIT,
        is_transfer: bool = False,
    ) -> Any:
        def over(lent: data_carriers.Lent[str]) -> Any:
            assert lent.plan == "plan"
            assert isinstance(lent.carrier, data_carriers.Bounded)
            if lent.spare is None:
                lent.carrier.open(["client"])
            return question(lent.carrier.carrier)

        return self.carriers.ask(1, over, ends_at, is_transfer=is_transfer)


@pytest.fixture
def site() -> Any:
    made = Site()
    yield made
    made.carriers.close()


def test_questions_share_one_login(site: Site) -> None:
    for _ in range(20):
        site.ask()
    assert [carrier.logins for carrier in site.made] == [1]


def test_questions_make_further_connections_only_beside_transfers(site: Site) -> None:
    site.ask()
    site.ask(lambda _: site.ask(), is_transfer=True)
    site.ask()
    wishes = [(wish.most_connections, wish.leaves) for wish in site.made[0].wishes]
    assert wishes == [(1, 0), (LIMIT, 1), (LIMIT, 0), (1, 0)]


def test_transfer_that_broke_after_its_start_is_not_begun_again(site: Site) -> None:
    asked = []

    def break_off(carrier: Carrier) -> None:
        asked.append(carrier)
        carrier.connections = 0
        raise controller_errors.TransferBroken("Half of it came.")

    site.ask()
    with pytest.raises(controller_errors.TransferBroken):
        site.ask(break_off, is_transfer=True)
    assert len(asked) == 1


def test_what_was_changed_makes_a_new_connection_and_ends_the_old_when_it_is_free(
    site: Site,
) -> None:
    is_asked, may_answer = threading.Event(), threading.Event()

    def slow(carrier: Any) -> None:
        is_asked.set()
        assert may_answer.wait(5)

    thread = threading.Thread(target=lambda: site.ask(slow))
    thread.start()
    assert is_asked.wait(5)
    site.place = Place(("host", "other key"))
    site.ask()
    old, new = site.made
    assert (old.is_closed, new.logins) == (False, 1)
    may_answer.set()
    thread.join(5)
    assert old.is_closed
    site.ask()
    assert (len(site.made), new.is_closed) == (2, False)


def test_connection_stays_where_the_control_connection_comes_to_it(site: Site) -> None:
    site.ask()
    site.place = Place(site.place.facts, "10.0.0.1")
    site.ask()
    assert len(site.made) == 1
    site.place = Place(site.place.facts, "10.0.0.2")
    site.ask()
    assert len(site.made) == 2


def test_refused_login_is_told_and_the_next_question_asks_the_gate_anew(site: Site) -> None:
    site.problems = [ssh_errors.LoginRefused("No."), None]
    with pytest.raises(ssh_errors.LoginRefused):
        site.ask()
    assert [carrier.logins for carrier in site.made] == [1]
    site.ask()
    assert len(site.made) == 2


@pytest.mark.parametrize("kind", [ssh_errors.BudgetSpent, ssh_errors.HostUnreachable])
def test_a_login_that_is_not_to_be_had_gives_up_no_open_connection(
    site: Site, kind: type[ssh_errors.LoginError]
) -> None:
    def one_more(carrier: Carrier) -> None:
        raise kind("Not now.")

    site.ask()
    with pytest.raises(kind):
        site.ask(one_more, is_transfer=True)
    site.ask()
    assert [(carrier.logins, carrier.is_closed) for carrier in site.made] == [(1, False)]


def test_a_further_login_that_is_refused_gives_the_connections_up(site: Site) -> None:
    def one_more(carrier: Carrier) -> None:
        raise ssh_errors.LoginRefused("No.")

    site.ask()
    with pytest.raises(ssh_errors.LoginRefused):
        site.ask(one_more, is_transfer=True)
    assert site.made[0].is_closed


@pytest.mark.parametrize("failures", [1, 9])
def test_question_over_a_dead_connection_is_asked_once_more(site: Site, failures: int) -> None:
    site.ask()
    questions: list[int] = []

    def question(carrier: Any) -> str:
        questions.append(1)
        if len(questions) <= failures:
            carrier.connections = 0
            raise errors.LinkClosed("It broke.")
        return "answer"

    with pytest.raises(errors.LinkClosed) if failures > 1 else nullcontext():
        assert site.ask(question) == "answer"
    assert len(questions) == 2


def test_question_over_a_dead_spare_is_asked_once_more_without_one(site: Site) -> None:
    site.ask(lambda carrier: [carrier.keep(number) for number in range(2)])
    spares: list[int] = []

    def question(carrier: Any) -> str:
        spares.append(len(carrier.spares))
        if len(spares) == 1:
            raise errors.LinkClosed("It was ended there.")
        return "answer"

    assert site.ask(question) == "answer"
    assert spares == [1, 1]
    assert [carrier.logins for carrier in site.made] == [1]


def test_question_whose_time_is_over_is_not_asked_again(site: Site) -> None:
    site.ask()
    questions: list[int] = []

    def question(carrier: Any) -> None:
        questions.append(1)
        carrier.connections = 0
        raise errors.NoAnswer("Silence.")

    with pytest.raises(errors.NoAnswer):
        site.ask(question, clock.now() - 0.1)
    assert len(questions) == 1


@pytest.mark.parametrize("is_kept", [True, False])
def test_question_is_asked_once_where_the_connection_is_alive_or_new(
    site: Site, is_kept: bool
) -> None:
    if is_kept:
        site.ask()
    questions: list[int] = []

    def question(carrier: Any) -> None:
        questions.append(1)
        carrier.connections = int(is_kept)
        raise errors.NoAnswer("Silence.")

    with pytest.raises(errors.NoAnswer):
        site.ask(question)
    assert len(questions) == 1


def test_login_node_that_went_away_gives_way_to_another(site: Site) -> None:
    site.ask()
    (old,) = site.made
    old.connections, old.problem = 0, ssh_errors.HostUnreachable("Gone.")
    site.ask()
    assert (len(site.made), old.is_closed) == (2, True)


def test_host_that_can_not_be_reached_is_tried_once(site: Site) -> None:
    site.problems = [ssh_errors.HostUnreachable("Down.")] * 5
    with pytest.raises(ssh_errors.HostUnreachable):
        site.ask()
    assert len(site.made) == 1


def test_idle_connection_is_closed_and_one_in_use_is_not(site: Site) -> None:
    site.idle_s = 0.1

    def slow(carrier: Any) -> bool:
        time.sleep(0.4)
        return bool(carrier.connections)

    assert site.ask(slow)
    (carrier,) = site.made
    assert processes.wait_until(lambda: carrier.is_closed, 5)
    assert site.carriers.count() == 0
    site.ask()
    assert len(site.made) == 2
    assert processes.wait_until(lambda: site.made[1].is_closed, 5)
    assert processes.wait_until(lambda: not _tenders(), 5)


def test_concurrent_first_questions_share_a_carrier(site: Site) -> None:
    may_make = threading.Barrier(6)
    make = site.carriers._make

    def slowly(cluster_id: int) -> Any:
        may_make.wait(5)
        return make(cluster_id)

    site.carriers._make = slowly
    used: list[Any] = []
    threads = [threading.Thread(target=lambda: site.ask(used.append)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert len(used) == 6
    assert len(set(used)) == 1


def _tenders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "hpc-data-idle"]
