"""What takes a minute, begun before all other tests: ends at a time limit, and a long outage."""

from __future__ import annotations

import time

from .conftest import submit_until_answered, wait_until

MINUTE_S = 60.0


def test_a_job_that_left_the_queue_is_told_by_the_accounting(vanished):
    site, tag = vanished
    wait_until(lambda: not site.state_of(tag), 40, "its leaving the queue")
    recorder = site.start(generation=2)
    try:
        data = recorder.wait(tag)
        # sacct calls it 15:0; the exit record tells which it was.
        assert (data["outcome"], data["exit_code"], data["signal"]) == ("failed", None, 15)
        assert recorder.wait(tag, "accounting")["elapsed_s"] >= 2
    finally:
        recorder.engine.stop()


def test_what_a_job_used_is_told_once_the_accounting_is_back(unaccounted):
    # slurmctld tries to reach slurmdbd again every 10 s.
    for tag in (unaccounted.good, unaccounted.bad):
        assert unaccounted.late.wait(tag, "accounting", limit_s=60)["elapsed_s"] >= 0


def test_a_job_that_reached_its_time_limit(crowd):
    assert crowd.wait("at its limit", limit_s=70)["outcome"] == "wall_time_exceeded"


def test_a_script_is_warned_before_its_time_limit(crowd):
    data = crowd.wait("warned", limit_s=70)
    assert (data["outcome"], data["exit_code"]) == ("failed", 77)


def test_while_the_controller_is_down_for_a_minute_nothing_ends_and_nothing_is_lost(outage):
    engine, site, answer = outage.recorder, outage.site, outage.answer()
    assert (answer.reason, answer.transient) == ("unavailable", True), answer
    assert "Unable to contact slurm controller" in answer.message
    wait_until(lambda: time.monotonic() > outage.down_since + MINUTE_S, 2 * MINUTE_S)
    for tag, kind in ((outage.runs, "running"), (outage.waits, "queued")):
        assert [event.kind for event in engine.read() if event.tag == tag][-1] == kind
    site.server.start_controller()
    submit_until_answered(engine, outage.late, outage.line, attempt=2)
    site.server.command("scontrol", "release", outage.waiting_id)
    assert engine.wait(outage.runs, limit_s=60)["exit_code"] == 7
    for tag in (outage.waits, outage.late):
        assert engine.wait(tag)["outcome"] == "completed"
    assert site.ran() == ["ran"] * 3
