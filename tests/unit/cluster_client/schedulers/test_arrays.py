"""A job array is told as one job."""

from __future__ import annotations

import pytest

from cluster_client.schedulers import (
    ENDED,
    QUEUED,
    RUNNING,
    UNKNOWN,
    Sighting,
    array_sighting,
    sighting_of_exit,
)


def ended(outcome, **changes):
    return Sighting(ENDED, outcome=outcome, **changes)


@pytest.mark.parametrize(
    ("states", "state"),
    [
        ((QUEUED, QUEUED), QUEUED),
        ((QUEUED, RUNNING), RUNNING),
        ((RUNNING, ENDED), RUNNING),
        ((QUEUED, ENDED), RUNNING),
        ((RUNNING, UNKNOWN), UNKNOWN),
        ((ENDED, ENDED), ENDED),
    ],
)
def test_it_runs_from_its_first_task_to_its_last(states, state):
    tasks = [ended("completed") if word == ENDED else Sighting(word) for word in states]
    told = array_sighting(tasks)
    assert (told.state, told.is_array, told.run) == (state, True, 0)


def test_it_is_completed_only_if_all_tasks_are():
    told = array_sighting([sighting_of_exit(0, 5.0, ""), sighting_of_exit(0, 9.0, "")])
    assert (told.outcome, told.exit_code, told.reason, told.ended_at) == ("completed", 0, "", 9.0)


def test_its_exit_code_is_the_highest_and_its_reason_counts():
    told = array_sighting([sighting_of_exit(code, 1.0, "") for code in (0, 3, 1, 0)])
    assert (told.outcome, told.exit_code) == ("failed", 3)
    assert told.reason == "of 4 tasks: 2 failed, 2 completed"


def test_the_worst_end_is_told():
    assert array_sighting([ended("failed"), ended("node_fail")]).outcome == "node_fail"
    assert array_sighting([ended("cancelled"), ended("failed")]).outcome == "cancelled"
