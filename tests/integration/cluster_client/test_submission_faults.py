"""Whatever dies when, a job runs exactly once. The engine under test is a process of its own."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from cluster_client import local_jobs
from cluster_client.protocol import messages

from .conftest import submit_of, tag_of, wait_until

TAG = tag_of(0)
POINTS = [f"daemon.submit.{number}" for number in range(1, 7)]


def ledger_line(site):
    return f"echo ran >>{site.ledger}; sleep 0.3"


def submit_until_answered(engine, message):
    """As the server does: ask again with the next attempt until the answer is a clear one."""
    attempt = message.attempt

    def ask():
        nonlocal attempt
        fields = {**message.__dict__, "attempt": attempt}
        attempt += 1
        answer = engine.ask(messages.Submit(**fields))
        return answer if answer["type"] != "Error" else None

    return wait_until(ask, what="a clear answer")


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_each_step_it_runs_once(start_process, site, python, point):
    marker = site.directory / "marker"
    first = start_process(python, fault_point=f"{point}:{marker}")
    assert first.ask(submit_of(TAG, ledger_line(site))) is None, "it should have been killed"
    assert marker.exists()
    second = start_process(python, generation=2)
    answer = submit_until_answered(second, submit_of(TAG, ledger_line(site), attempt=2))
    assert answer["type"] == "Submitted"
    assert second.wait(TAG)["outcome"] == "completed"
    assert site.ran() == ["ran"]
    submitted = [data for tag, kind, data in second.events() if kind == "submitted"]
    assert {data["scheduler_job_id"] for data in submitted} == {answer["scheduler_job_id"]}


@pytest.mark.parametrize("point", POINTS[4:])
def test_killed_after_the_command_it_is_found_without_being_asked(start_process, site, point):
    first = start_process(fault_point=f"{point}:{site.directory / 'marker'}")
    first.ask(submit_of(TAG, ledger_line(site)))
    second = start_process(generation=2)
    assert second.wait(TAG)["outcome"] == "completed"
    assert site.ran() == ["ran"]


def test_no_look_up_is_trusted_while_the_jobs_file_system_is_not_mounted(start_process, site):
    first = start_process(fault_point=f"daemon.submit.5:{site.directory / 'marker'}")
    first.ask(submit_of(TAG, ledger_line(site)))
    wait_until((site.jobs / TAG / ".hpc" / "exit.-.0").exists)
    away = site.directory / "away"
    site.jobs.rename(away)
    second = start_process(generation=2)
    time.sleep(1.5)  # longer than the adapter's time before a retry
    answer = second.ask(submit_of(TAG, ledger_line(site), attempt=2))
    assert (answer["type"], answer["code"]) == ("Error", "unresolved")
    assert not site.jobs.exists()
    away.rename(site.jobs)
    answer = submit_until_answered(second, submit_of(TAG, ledger_line(site), attempt=3))
    assert answer["type"] == "Submitted"
    second.wait(TAG)
    assert site.ran() == ["ran"]


@pytest.mark.parametrize("point", POINTS)
def test_a_cancel_after_the_kill_wins_over_what_was_not_submitted(start_process, site, point):
    first = start_process(fault_point=f"{point}:{site.directory / 'marker'}")
    first.ask(submit_of(TAG, f"echo ran >>{site.ledger}; sleep 60"))
    second = start_process(generation=2)
    wait_until(lambda: second.ask(messages.Cancel(TAG))["type"] == "Done")

    def end():
        told = [(kind, data) for _, kind, data in second.events() if kind in ("ended", "rejected")]
        return told or None

    ((kind, data),) = wait_until(end, what="the end of the cancelled job")
    assert (kind, data.get("outcome", data["reason"])) in (
        ("ended", "cancelled"),
        ("rejected", "cancelled"),
    )
    assert len(site.ran()) <= 1
    assert site.members() == []
    answer = second.ask(submit_of(TAG, f"echo ran >>{site.ledger}; sleep 60", attempt=9))
    assert answer["type"] == ("Submitted" if kind == "ended" else "Rejected")
    assert len(site.ran()) <= 1


def test_a_job_outlives_its_engine_and_the_next_one_tells_its_end(start_process, site, python):
    first = start_process(python)
    answer = first.ask(submit_of(TAG, f"sleep 1; {ledger_line(site)}; exit 5"))
    first.kill()
    second = start_process(python, generation=2)
    assert second.wait(TAG)["exit_code"] == 5
    assert site.ran() == ["ran"]
    again = second.ask(submit_of(TAG, f"sleep 1; {ledger_line(site)}; exit 5", attempt=2))
    assert again["scheduler_job_id"] == answer["scheduler_job_id"]


def test_an_end_while_no_engine_runs_is_told_by_the_next(start_process, site):
    first = start_process()
    first.ask(submit_of(TAG, f"{ledger_line(site)}; exit 6"))
    first.kill()
    wait_until((site.jobs / TAG / ".hpc" / "exit.-.0").exists)
    assert start_process(generation=2).wait(TAG)["exit_code"] == 6


def test_unacknowledged_events_survive_and_keep_their_numbers(start_process):
    first = start_process()
    first.ask(submit_of(TAG, "true"))
    first.wait(TAG)
    before = first.ask({"type": "events", "after": 0})
    assert first.ask({"type": "ack", "seq": 1})
    first.kill()
    second = start_process(generation=2)
    assert second.ask({"type": "events", "after": 0}) == before[1:]


def test_a_new_store_looks_up_a_job_before_it_submits_again(start_process, site):
    first = start_process()
    answer = first.ask(submit_of(TAG, ledger_line(site)))
    first.kill()
    site.state.rename(site.directory / "lost")
    second = start_process()
    again = second.ask(submit_of(TAG, ledger_line(site), attempt=2))
    assert again["scheduler_job_id"] == answer["scheduler_job_id"]
    assert second.wait(TAG)["outcome"] == "completed"
    assert site.ran() == ["ran"]


def test_a_submit_command_that_hangs_is_killed_and_the_job_looked_up(start_engine, site):
    engine = start_engine()
    # A reader that never comes: opening the job's output blocks the command in the kernel.
    (site.jobs / TAG).mkdir(parents=True)
    os.mkfifo(site.jobs / TAG / "stdout.log")
    answer = engine.submit(TAG, ledger_line(site), limit_s=1.0)
    assert (answer.code, answer.transient) == ("unresolved", True)
    (site.jobs / TAG / "stdout.log").unlink()
    message = submit_of(TAG, ledger_line(site), attempt=2)

    def ask():
        reply = engine.engine.handle(message)
        return reply if isinstance(reply, messages.Submitted) else None

    wait_until(ask)
    assert engine.wait(TAG)["outcome"] == "completed"
    assert site.ran() == ["ran"]


def test_of_two_wrappers_one_runs_and_the_other_ends_with_121(start_engine, site):
    engine = start_engine()
    answer = engine.submit(TAG, f"{ledger_line(site)}; sleep 1")
    directory = site.jobs / TAG
    second = subprocess.run(
        ["/bin/bash", "-p", directory / ".hpc" / "wrapper"], cwd=directory, check=False
    )
    assert second.returncode == 121
    assert engine.wait(TAG)["outcome"] == "completed"
    assert site.ran() == ["ran"]
    assert len(list((directory / ".hpc").glob("duplicate.*"))) == 1
    assert (directory / ".hpc" / "claim").read_text().split("\n")[0] == answer.scheduler_job_id


def test_a_duplicate_that_is_found_is_cancelled_and_the_claim_is_the_job(start_engine, site):
    engine = start_engine()
    answer = engine.submit(TAG, f"{ledger_line(site)}; sleep 1")
    # A second start that has not got to its claim yet: bash, stopped in front of the wrapper.
    argv = ["/bin/bash", "-p", str(site.jobs / TAG / ".hpc" / "wrapper")]
    (site.jobs / TAG / ".hpc" / "wrapper").rename(site.jobs / TAG / ".hpc" / "kept")
    os.mkfifo(site.jobs / TAG / ".hpc" / "wrapper")
    duplicate = subprocess.Popen(argv, start_new_session=True)
    try:
        wait_until(lambda: local_jobs.id_of(duplicate.pid))
        found = engine.engine._batch.look_up(TAG, 0.0)
        assert found.scheduler_job_id == answer.scheduler_job_id
        assert found.others == (local_jobs.id_of(duplicate.pid),)
        engine.engine._batch.cancel_duplicates(TAG, found.others)
        assert duplicate.wait(10) == -15
    finally:
        duplicate.kill()
        duplicate.wait()
    assert engine.wait(TAG)["outcome"] == "completed"
