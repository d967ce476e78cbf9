"""What ends a job that the scheduler no longer knows; see the rules of cluster_client.evidence."""

from __future__ import annotations

import json

import pytest

from cluster_client.protocol import messages
from cluster_client.schedulers import ABSENT, QUEUED, RUNNING, UNKNOWN

from . import scripted
from .conftest import tag_of, wait_until

TAG = tag_of(0)


class Watched:
    """A job of the scripted scheduler; its exit records are written by hand."""

    def __init__(self, recorder, site):
        self._recorder = recorder
        self._script = scripted.Script(recorder.engine, site.directory / "answers")
        self._control = site.jobs / TAG / ".hpc"

    def record(self, restart, exit_code):
        fields = {"id": "77", "exit": exit_code, "end": 1}
        (self._control / f"exit.-.{restart}").write_text(json.dumps(fields))

    def polled(self, *states):
        """The kinds of the events so far, after these polls and some that failed."""
        self._script.play(TAG, *states, wait_until=wait_until)
        return [kind for kind, _ in self._recorder.of(TAG)]

    def end(self):
        return self._recorder.wait(TAG)


@pytest.fixture
def job(start_engine, site, monkeypatch):
    monkeypatch.setattr("cluster_client.pace._LOAD_FACTOR", 0)
    monkeypatch.setattr("cluster_client.pace.FAILED_CAP_S", 0.05)
    (site.directory / "answers").mkdir()
    recorder = start_engine(
        scheduler=scripted.CLASS, poll_interval_s=0.05, poll_interval_idle_s=0.05
    )
    assert recorder.submit(TAG, "true") == messages.Submitted(TAG, "77")
    return Watched(recorder, site)


def test_one_absent_poll_is_no_end_nor_is_a_failed_query_after_it(job):
    assert job.polled(RUNNING) == ["submitted", "running"]
    job.record(0, 0)
    assert job.polled(ABSENT) == ["submitted", "running"]
    assert job.polled(ABSENT) == ["submitted", "running", "ended"]
    assert job.end()["outcome"] == "completed"


@pytest.mark.parametrize(("first", "second"), [(0, 1), (9, 10)])
def test_the_record_of_the_newest_restart_tells_the_end(job, first, second):
    job.record(first, 1)
    job.record(second, 5)
    assert job.polled(ABSENT, ABSENT)[-1] == "ended"
    assert (job.end()["outcome"], job.end()["exit_code"]) == ("failed", 5)


@pytest.mark.parametrize("state", [QUEUED, RUNNING, UNKNOWN])
def test_a_job_that_the_queue_shows_is_not_ended_whatever_its_record_says(job, state):
    job.record(0, 0)
    assert "ended" not in job.polled(ABSENT, state, ABSENT, state)
    assert "ended" in job.polled(ABSENT, ABSENT)


def test_a_job_that_is_absent_without_a_record_is_not_ended(job):
    assert job.polled(ABSENT, ABSENT, ABSENT) == ["submitted"]
    job.record(0, 3)
    assert job.polled(ABSENT)[-1] == "ended"
    assert job.end()["exit_code"] == 3
