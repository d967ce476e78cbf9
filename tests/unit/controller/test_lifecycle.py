"""The table of a job's life: every pair of status and event, and what must never happen."""

import itertools
from pathlib import Path

import pytest

from controller import lifecycle
from controller.lifecycle import ENDS, FINAL, TRANSITIONS, Event, JobStatus, next_status

PAIRS = list(itertools.product(JobStatus, Event))


@pytest.mark.parametrize(("status", "event"), PAIRS)
def test_every_pair_moves_as_the_table_says_or_not_at_all(status: JobStatus, event: Event) -> None:
    after = next_status(status, event, known_run=0, run=1)
    assert after == TRANSITIONS.get((status, event))


@pytest.mark.parametrize(("status", "event"), sorted(TRANSITIONS))
def test_an_event_of_an_earlier_run_is_illegal(status: JobStatus, event: Event) -> None:
    assert next_status(status, event, known_run=2, run=1) is None


def test_a_requeue_is_legal_only_with_a_new_run() -> None:
    assert next_status(JobStatus.RUNNING, Event.QUEUE, known_run=0, run=0) is None
    assert next_status(JobStatus.RUNNING, Event.QUEUE, known_run=0, run=1) is JobStatus.QUEUED


@pytest.mark.parametrize("status", sorted(FINAL))
def test_an_end_is_a_sink_for_all_but_delete_and_accounting(status: JobStatus) -> None:
    assert lifecycle.legal_events(status) == {Event.DELETE, Event.ACCOUNT}
    assert next_status(status, Event.ACCOUNT) is status


@pytest.mark.parametrize("event", sorted(ENDS))
def test_a_true_end_overtakes_a_cancel(event: Event) -> None:
    assert next_status(JobStatus.CANCELLING, event) is ENDS[event]


@pytest.mark.parametrize("status", [JobStatus.DRAFT, JobStatus.PENDING])
def test_what_no_cluster_has_is_cancelled_at_once(status: JobStatus) -> None:
    assert next_status(status, Event.CANCEL) is JobStatus.CANCELLED


def test_a_draft_can_only_be_submitted_or_cancelled() -> None:
    assert lifecycle.legal_events(JobStatus.DRAFT) == {Event.SUBMIT, Event.CANCEL}


def test_every_status_but_the_last_has_a_way_out_and_all_are_reached() -> None:
    reached = {JobStatus.DRAFT, *TRANSITIONS.values()}
    assert reached == set(JobStatus)
    leaving = {before for (before, _), after in TRANSITIONS.items() if before is not after}
    assert set(JobStatus) - leaving == {JobStatus.DELETED}


def test_numbers_are_those_that_portals_know() -> None:
    assert {status.name: status.value for status in JobStatus} == {
        "DRAFT": 0, "PENDING": 10, "SUBMITTING": 20, "SUBMITTED": 30, "QUEUED": 40,
        "RUNNING": 50, "CANCELLING": 60, "CANCELLED": 70, "DELETING": 80, "DELETED": 90,
        "ERROR": 400, "WALL_TIME_EXCEEDED": 401, "OUT_OF_MEMORY": 402, "NODE_FAIL": 403,
        "PREEMPTED": 404, "COMPLETED": 500,
    }  # fmt: skip


def test_the_page_in_docs_is_what_the_table_says(checkout: Path) -> None:
    assert (checkout / "docs" / "lifecycle.md").read_text() == lifecycle.diagram()
