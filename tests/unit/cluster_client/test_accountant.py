"""When the accounting is asked, and what is made of its answers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cluster_client import accountant, errors, schedulers
from cluster_client.accountant import Accountant
from cluster_client.schedulers import ENDED, RUNNING, JobRef, Sighting, Usage

JOB = JobRef("j" + "a" * 14, "7")
FAILED = Sighting(ENDED, outcome="failed", exit_code=1, is_provisional=True)


class Batch:
    """Answers as it is told to, and counts."""

    def __init__(self):
        self.asked = []
        self.answer = {}

    def accounting(self, jobs):
        self.asked.append(tuple(jobs))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def batch():
    return Batch()


@pytest.fixture
def asker(batch):
    return Accountant(SimpleNamespace(), batch)


def test_jobs_at_work_are_not_asked_for(asker, batch):
    seen = {JOB.tag: Sighting(RUNNING)}
    assert asker.consult([JOB], seen).sightings == seen
    assert batch.asked == []


def test_all_that_are_ended_or_absent_are_asked_for_at_once(asker, batch):
    other, third = JobRef("other", "8"), JobRef("third", "9")
    batch.answer = {"other": Sighting(ENDED, outcome="completed", usage=Usage(1.0))}
    seen = {JOB.tag: Sighting(ENDED, outcome="completed"), "third": Sighting(RUNNING)}
    view = asker.consult([JOB, other, third], seen)
    assert batch.asked == [(JOB, other)]
    assert view.sightings["other"].outcome == "completed"
    assert view.sightings[JOB.tag] is seen[JOB.tag]


def test_an_end_of_which_more_may_be_known_waits_a_little(asker, batch):
    seen = {JOB.tag: FAILED}
    polls = [asker.consult([JOB], seen).undecided for _ in range(accountant.PATIENCE)]
    assert polls == [{JOB.tag}] * (accountant.PATIENCE - 1) + [frozenset()]


def test_an_accounting_that_fails_holds_nothing_up_and_is_left_in_peace(asker, batch):
    batch.answer = errors.CommandFailed("down")
    for _ in range(5):
        view = asker.consult([JOB], {JOB.tag: FAILED})
        assert view.undecided == frozenset()
        assert view.sightings[JOB.tag] is FAILED
    assert len(batch.asked) == 1


def test_what_stays_absent_is_asked_for_seldom(asker, batch):
    for _ in range(100):
        asker.consult([JOB], {})
    assert len(batch.asked) == accountant.PATIENCE + 3


def test_no_accounting_is_no_question(asker, batch):
    batch.answer = None
    assert asker.consult([JOB], {JOB.tag: FAILED}).undecided == frozenset()
    assert schedulers.ABSENT not in asker.consult([JOB], {}).sightings
