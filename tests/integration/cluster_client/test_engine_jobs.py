"""Jobs of the local scheduler, from submission to the event of their end."""

from __future__ import annotations

import json
import os
import resource
import statistics
import threading
import time

import pytest

from cluster_client import errors, local_jobs
from cluster_client.environment import Login, LoginEnvironment
from cluster_client.filesystem import Filesystem
from cluster_client.job_records import JobRecord
from cluster_client.protocol import messages
from cluster_client.schedulers import JobRef, local

from .conftest import submit_of, tag_of, wait_until

TAG = tag_of(0)


def kinds(recorder, tag):
    return [kind for kind, _ in recorder.of(tag)]


def test_a_job_runs_in_its_directory_and_ends_completed(start_engine, site):
    engine, body = start_engine(), "pwd; echo oops >&2; until test -e go; do sleep 0.05; done"
    answer = engine.submit(TAG, body)
    assert isinstance(answer, messages.Submitted)
    engine.wait(TAG, "running")  # a job that ends sooner may never be seen to run
    directory = site.jobs / TAG
    (directory / "go").touch()
    assert engine.wait(TAG)["outcome"] == "completed"
    assert kinds(engine, TAG) == ["submitted", "running", "ended"]
    assert (directory / "stdout.log").read_text() == f"{directory}\n"
    assert (directory / "stderr.log").read_text() == "oops\n"
    assert (directory / ".hpc" / "script").read_text() == f"#!/bin/bash\n{body}\n"
    wait_until(lambda: not list(site.hints.iterdir()), what="the removal of all hints")


@pytest.mark.parametrize(
    ("body", "exit_code", "signal", "outcome"),
    [
        ("exit 3", 3, None, "failed"),
        ("kill -KILL $$", None, 9, "failed"),
        ("kill -SEGV $$", None, 11, "failed"),
        ("#!/usr/bin/env -S bash -e\nfalse; true\n", 1, None, "failed"),
        ("#!/usr/bin/env python3\nraise SystemExit(42)\n", 42, None, "failed"),
        ("#!/no/such/interpreter\n", 122, None, "refused"),
    ],
)
def test_how_it_ended_is_told(start_engine, body, exit_code, signal, outcome):
    engine = start_engine()
    engine.submit(TAG, body)
    data = engine.wait(TAG)
    assert (data["outcome"], data["exit_code"], data["signal"]) == (outcome, exit_code, signal)
    assert data["reason"]


def test_the_environment_the_umask_and_stdin_are_those_of_a_login(start_engine, site):
    login = LoginEnvironment(
        lambda: Login(
            {"PATH": "/usr/bin:/bin", "A": "from login", "B": "x"}, {resource.RLIMIT_CORE: 2048}
        )
    )
    engine = start_engine(login=login, umask=0o027)
    engine.submit(
        TAG,
        "umask; cat; echo end; env | grep -v -e ^_= -e ^SHLVL= -e ^PWD= | sort; ulimit -Sc",
        environment={"B": "from the job", "PYTHONPATH": "/kept"},
    )
    engine.wait(TAG)
    out = (site.jobs / TAG / "stdout.log").read_text().splitlines()
    assert out[:2] == ["0027", "end"]
    assert out[-1] == "2"  # blocks of 1 KiB
    assert out[2:-1] == ["A=from login", "B=from the job", "PATH=/usr/bin:/bin", "PYTHONPATH=/kept"]
    assert (site.jobs / TAG).stat().st_mode & 0o7777 == 0o750
    assert (site.jobs / TAG / "stdout.log").stat().st_mode & 0o777 == 0o640


def test_the_same_submission_is_answered_with_the_same_id(start_engine, site):
    engine = start_engine()
    body = f"echo ran >>{site.ledger}"
    first = engine.submit(TAG, body)
    assert engine.submit(TAG, body) == first
    engine.wait(TAG)
    assert engine.submit(TAG, body, attempt=2) == first
    assert engine.engine._batch.calls["submit"] == 1
    assert site.ran() == ["ran"]


def test_eight_at_once_with_one_tag_are_one_job(start_engine, site):
    engine = start_engine(submit_parallel=8)
    answers = []

    def ask(number):
        answers.append(engine.submit(TAG, f"echo ran >>{site.ledger}", attempt=number + 1))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    assert isinstance(answers[0], messages.Submitted)
    engine.wait(TAG)
    assert site.ran() == ["ran"]


def test_who_meets_a_look_up_of_the_watcher_waits_for_it_and_gets_a_clear_answer(
    start_engine, site, monkeypatch
):
    engine = start_engine()
    submitter, batch = engine.engine._submitter, engine.engine._batch
    has_begun, may_end = threading.Event(), threading.Event()
    look_up = batch.look_up

    def slow(*arguments):
        has_begun.set()
        may_end.wait(10)
        return look_up(*arguments)

    monkeypatch.setattr(batch, "look_up", slow)
    record = JobRecord(TAG, intent_at=time.time() - 60, limit_s=1.0, cancel_requested_at=1.0)
    engine.engine._store.put(record)
    (site.jobs / ".trash").mkdir(parents=True)
    watcher = threading.Thread(target=submitter.resolve, args=(TAG,))
    watcher.start()
    assert has_begun.wait(10)
    answers = []
    asker = threading.Thread(target=lambda: answers.append(engine.submit(TAG, "true", attempt=2)))
    asker.start()
    wait_until(lambda: asker.is_alive() and submitter.is_in_flight(TAG))
    may_end.set()
    asker.join()
    watcher.join()
    assert (type(answers[0]), answers[0].reason) == (messages.Rejected, "cancelled")


def test_many_jobs_are_followed_by_one_query_each_time(start_engine, site):
    engine = start_engine(submit_parallel=4)
    tags = [tag_of(number) for number in range(30)]
    for tag in tags:
        engine.submit(tag, "sleep 0.2")
    for tag in tags:
        assert engine.wait(tag)["outcome"] == "completed"
    assert engine.engine._batch.calls["queue"] < 2 * len(tags)
    assert engine.engine.last_poll.open_jobs <= len(tags)


def test_an_end_is_seen_within_a_second(start_engine):
    engine = start_engine()
    delays = []
    for number in range(15):
        tag = tag_of(number)
        engine.submit(tag, "sleep 0.1; date +%s.%N >end")
        engine.wait(tag)
        event = next(e for e in engine.events if e.tag == tag and e.kind == "ended")
        delays.append(time.time() - event.at)
    assert statistics.median(delays) < 1.0, delays


def test_no_query_runs_while_no_job_is_open(start_engine):
    engine = start_engine(poll_interval_s=0.05, poll_interval_idle_s=0.05)
    engine.submit(TAG, "true")
    engine.wait(TAG)
    before = engine.engine._batch.calls
    threading.Event().wait(1.0)
    assert engine.engine._batch.calls == before


def test_a_cancel_ends_the_job_and_all_that_it_started(start_engine, site):
    engine = start_engine()
    engine.submit(TAG, "sleep 300 & setsid true; sleep 300")
    engine.wait(TAG, "running")
    started = time.monotonic()
    assert engine.engine.handle(messages.Cancel(TAG)) == messages.Done()
    assert engine.wait(TAG)["outcome"] == "cancelled"
    assert time.monotonic() - started < 12  # the job itself would take 300 s
    assert site.members() == []


def test_a_job_that_ignores_the_signal_is_killed_after_its_grace(start_engine, site):
    engine = start_engine()
    engine.submit(TAG, "trap '' TERM; touch ready; while :; do sleep 1; done")
    wait_until((site.jobs / TAG / "ready").exists)
    engine.engine.handle(messages.Cancel(TAG))
    data = engine.wait(TAG)
    assert (data["outcome"], data["signal"]) == ("cancelled", 9)
    assert site.members() == []


def test_an_environment_that_no_process_can_have_is_rejected_for_good(start_engine):
    engine = start_engine()
    large = {f"V{number}": "x" * 100_000 for number in range(40)}
    answer = engine.submit(TAG, "true", environment=large)
    assert (answer.reason, answer.transient) == ("invalid_request", False)


def test_a_cancel_after_the_end_changes_nothing(start_engine):
    engine = start_engine()
    engine.submit(TAG, "exit 4")
    engine.wait(TAG)
    assert engine.engine.handle(messages.Cancel(TAG)) == messages.Done()
    assert kinds(engine, TAG)[-1] == "ended"
    assert engine.engine._store.get(TAG).outcome == "failed"


def test_a_cancel_that_finds_the_job_ended_leaves_it_its_true_end(start_engine, site):
    engine = start_engine(hint_interval_s=60.0)  # so that the end is not seen before
    engine.submit(TAG, "true")
    wait_until((site.jobs / TAG / ".hpc" / "exit.-.0").exists)
    engine.engine.handle(messages.Cancel(TAG))
    assert engine.wait(TAG)["outcome"] == "completed"


def test_a_cancel_before_the_submission_wins(start_engine, site):
    engine = start_engine()
    assert engine.engine.handle(messages.Cancel(TAG)) == messages.Done()
    assert engine.of(TAG)[0][1]["reason"] == "cancelled"
    answer = engine.submit(TAG, f"echo ran >>{site.ledger}")
    assert (type(answer), answer.reason) == (messages.Rejected, "cancelled")
    assert not (site.jobs / TAG).exists()


def test_what_the_scheduler_no_longer_offers_is_refused_for_new_jobs_alone(
    start_engine, site, monkeypatch
):
    engine = start_engine()
    body = f"echo ran >>{site.ledger}; sleep 0.5"
    first = engine.submit(TAG, body)
    monkeypatch.setattr(local.Local, "objection", lambda self, submit: "No longer offered.")
    monkeypatch.setattr("cluster_client.validation._LIMIT_S", 1.0)
    assert engine.submit(TAG, body, attempt=2) == first
    unlimited = engine.submit(tag_of(2), body)
    assert (unlimited.reason, unlimited.transient) == ("invalid_request", False)
    new = engine.submit(tag_of(1), body, limit_s=1.0)
    assert (new.reason, new.message, new.transient) == (
        "invalid_request", "No longer offered.", False,
    )  # fmt: skip
    assert engine.wait(TAG)["exit_code"] == 0
    assert site.ran() == ["ran"]
    assert not (site.jobs / tag_of(1)).exists()


def test_a_cancel_while_the_environment_is_being_read_wins(start_engine, site):
    gate = threading.Event()

    def slow():
        gate.wait(10)
        return Login({"PATH": os.environ["PATH"]})

    engine = start_engine(login=LoginEnvironment(slow))
    answers = []
    body = f"echo ran >>{site.ledger}; sleep 60"
    thread = threading.Thread(target=lambda: answers.append(engine.submit(TAG, body)))
    thread.start()
    wait_until((site.jobs / TAG / ".hpc" / "wrapper").exists)
    assert engine.engine.handle(messages.Cancel(TAG)) == messages.Done()
    gate.set()
    thread.join()
    assert (type(answers[0]), answers[0].reason) == (messages.Rejected, "cancelled")
    assert site.ran() == []
    assert "submit" not in engine.engine.status()["commands"]


def test_an_environment_that_is_long_in_coming_holds_a_job_back(start_engine, site):
    gate = threading.Event()
    login = LoginEnvironment(
        lambda: gate.wait(20) and Login({"PATH": os.environ["PATH"]}), wait_s=0.2
    )
    engine = start_engine(login=login)
    body = f"echo ran >>{site.ledger}"
    refused = engine.submit(TAG, body)
    assert (refused.reason, refused.transient) == ("environment", True)
    gate.set()
    wait_until(lambda: login.is_tried)
    assert isinstance(engine.submit(TAG, body, attempt=2), messages.Submitted)
    engine.wait(TAG)
    assert site.ran() == ["ran"]


def test_a_job_that_no_slot_is_free_for_is_told_to_come_again(start_engine, site):
    gate = threading.Event()
    login = LoginEnvironment(lambda: gate.wait(20) and Login({"PATH": os.environ["PATH"]}))
    engine = start_engine(login=login)
    first = threading.Thread(target=engine.submit, args=(TAG, "true"))
    first.start()
    wait_until((site.jobs / TAG / ".hpc" / "wrapper").exists)
    body = f"echo ran >>{site.ledger}"
    refused = engine.submit(tag_of(1), body, limit_s=0.2)
    assert (refused.reason, refused.transient) == ("busy", True)
    gate.set()
    first.join()
    assert isinstance(engine.submit(tag_of(1), body, attempt=2), messages.Submitted)
    engine.wait(tag_of(1))
    assert site.ran() == ["ran"]


def test_no_job_runs_without_the_set_up_commands_and_it_is_tried_again(start_engine, site):
    there = threading.Event()

    def read():
        if not there.is_set():
            raise errors.EnvironmentUnread("The shell said: no module named slurm")
        return Login({"PATH": os.environ["PATH"], "FOO": "bar"})

    engine = start_engine(login=LoginEnvironment(read, retry_s=0.1))
    body = f"echo FOO=$FOO >>{site.ledger}"
    refused = engine.submit(TAG, body)
    assert (refused.reason, refused.transient) == ("environment", True)
    assert "no module named slurm" in refused.message
    assert "no module named slurm" in engine.engine.status()["login_environment"]
    there.set()
    wait_until(lambda: engine.engine.status()["login_environment"] == "read")
    assert isinstance(engine.submit(TAG, body, attempt=2), messages.Submitted)
    assert engine.wait(TAG)["exit_code"] == 0
    assert site.ran() == ["FOO=bar"]


def test_set_up_commands_that_fail_hold_jobs_back(start_engine, site):
    engine = start_engine(
        login=False, setup_commands="export FOO=bar\necho sorry >&2; exit 3", login_limit_s=30.0
    )
    refused = engine.submit(TAG, f"echo ran >>{site.ledger}")
    assert (refused.reason, refused.transient) == ("environment", True)
    assert "sorry" in refused.message
    assert site.ran() == []


def test_set_up_commands_that_take_longer_than_the_limit_hold_jobs_back(start_engine, site):
    engine = start_engine(login=False, setup_commands="sleep 60", login_limit_s=1.0)
    refused = engine.submit(TAG, f"echo ran >>{site.ledger}")
    assert (refused.reason, refused.transient) == ("environment", True)
    assert "1 s" in refused.message


def test_a_job_whose_wrapper_is_shot_is_failed_only_when_all_of_it_is_gone(start_engine, site):
    engine = start_engine(poll_interval_s=0.3)
    answer = engine.submit(TAG, "sleep 2; touch done")
    wait_until((site.jobs / TAG / ".hpc" / "claim").exists)
    engine.wait(TAG, "running")
    os.kill(local_jobs.pid_of(answer.scheduler_job_id), 9)
    data = engine.wait(TAG)
    assert (data["outcome"], (site.jobs / TAG / "done").exists()) == ("failed", True)
    assert "vanished" in data["reason"]


def test_a_job_that_spoils_its_exit_record_is_blocked_alone(start_engine):
    engine = start_engine(poll_interval_s=0.2, lost_after_s=0.5)
    engine.submit(TAG, "mkdir .hpc/exit.-.0; sleep 0.3")
    engine.submit(tag_of(1), "sleep 0.3")
    assert engine.wait(tag_of(1))["outcome"] == "completed"
    assert engine.wait(TAG, "blocked")["reason"] == "no_evidence"
    assert "ended" not in kinds(engine, TAG)


@pytest.mark.parametrize("body", ["echo insurance >claim; mkdir exit.-.0", "rm -rf -- *"])
def test_what_a_job_does_to_its_own_files_changes_nothing(start_engine, body):
    engine = start_engine(poll_interval_s=0.5)
    engine.submit(TAG, f"{body}; sleep 0.3; exit 7")
    assert engine.wait(TAG)["exit_code"] == 7
    told = [kind for kind in kinds(engine, TAG) if kind != "running"]  # for so short a time
    assert told == ["submitted", "ended"]


@pytest.mark.parametrize("spoil", ["echo insurance >.hpc/claim", "rm -rf .[a-z]* *"])
def test_a_job_that_spoils_our_files_is_still_told(start_engine, spoil):
    engine = start_engine(poll_interval_s=0.5)
    engine.submit(TAG, f"{spoil}; sleep 0.3")
    assert engine.wait(TAG)["outcome"] in ("completed", "failed")
    assert kinds(engine, TAG).count("submitted") == 1
    assert engine.engine.handle(messages.Delete(TAG)).is_complete


@pytest.fixture
def unmount(site):
    """Take the jobs' root away, and leave nothing or an empty directory; give it back."""

    def take(is_empty):
        site.jobs.rename(site.directory / "away")
        if is_empty:
            site.jobs.mkdir()

    def give_back():
        if site.jobs.exists():
            site.jobs.rmdir()
        (site.directory / "away").rename(site.jobs)

    take.back = give_back
    return take


@pytest.mark.parametrize("is_empty", [True, False])
def test_what_lies_on_a_file_system_that_is_not_mounted_is_not_deleted(
    start_engine, site, unmount, is_empty
):
    engine = start_engine()
    assert engine.engine.handle(messages.Delete(TAG)).is_complete  # nothing was ever made
    engine.submit(TAG, "true")
    engine.wait(TAG)
    unmount(is_empty)
    answer = engine.engine.handle(messages.Delete(TAG))
    assert (answer.code, answer.transient) == ("not_stored", True)
    assert "mounted" in answer.message
    unmount.back()
    assert engine.engine.handle(messages.Delete(TAG)).is_complete
    assert not (site.jobs / TAG).exists()


@pytest.mark.parametrize("is_empty", [True, False])
def test_a_job_on_a_file_system_that_is_not_mounted_has_not_vanished(
    start_engine, site, unmount, is_empty
):
    old = start_engine(hint_interval_s=60.0)  # so that the end is not seen before
    old.submit(TAG, "sleep 1; exit 7")
    old.wait(TAG, "running")
    wait_until((site.jobs / TAG / ".hpc" / "exit.-.0").exists)
    wait_until(lambda: not site.members())
    old.engine.stop()
    unmount(is_empty)
    new = start_engine(generation=2, poll_interval_s=0.1, poll_interval_idle_s=0.1)
    wait_until(lambda: new.engine.last_poll)
    assert "ended" not in kinds(new, TAG)
    refused = new.submit(tag_of(1), "true")
    assert (refused.reason, refused.transient) == ("not_stored", True)
    assert "mounted" in refused.message
    unmount.back()
    assert new.wait(TAG)["exit_code"] == 7


def test_compare_tells_what_is_known_unknown_and_extra(start_engine):
    engine = start_engine()
    engine.submit(TAG, "exit 7")
    engine.submit(tag_of(1), "sleep 60")
    engine.wait(TAG)
    compared = engine.engine.handle(messages.Compare((TAG, tag_of(2))))
    (state,) = compared.jobs
    assert (state.state, state.outcome, state.exit_code) == ("ended", "failed", 7)
    assert (compared.unknown, compared.extra) == ((tag_of(2),), (tag_of(1),))


def test_what_the_server_has_acknowledged_is_still_answered(start_engine):
    engine = start_engine()
    first = engine.submit(TAG, "exit 7")
    engine.wait(TAG)
    outbox_id = engine.engine.status()["outbox_id"]
    assert not engine.engine.acknowledge(messages.Ack("another", 99))
    assert engine.engine.acknowledge(messages.Ack(outbox_id, engine.events[-1].seq))
    assert engine.engine.events_after(0) == []
    assert engine.submit(TAG, "exit 7", attempt=2) == first
    assert [event.kind for event in engine.engine.events_after(0)] == ["ended"]
    assert engine.engine.handle(messages.Compare((TAG,))).jobs[0].outcome == "failed"
    again = start_engine(generation=2)
    assert again.submit(TAG, "exit 7", attempt=3) == first


def test_a_tag_with_another_script_is_refused_and_nothing_runs(start_engine, site):
    engine = start_engine()
    engine.submit(TAG, "exit 7")
    engine.wait(TAG)
    answer = engine.submit(TAG, f"echo ran >>{site.ledger}", attempt=2)
    assert (answer.reason, answer.transient) == ("tag_reused", False)
    assert site.ran() == []


def test_jobs_that_a_lost_store_forgot_are_followed_again_when_the_server_names_them(
    start_engine, site
):
    old = start_engine()
    old.submit(TAG, "sleep 1; exit 7")
    old.submit(tag_of(1), "exit 8")
    wait_until((site.jobs / tag_of(1) / ".hpc" / "exit.-.0").exists)
    old.engine.stop()
    site.state.rename(site.directory / "lost")
    new = start_engine()
    compared = new.engine.handle(messages.Compare((TAG, tag_of(1), tag_of(2))))
    assert [state.tag for state in compared.jobs] == [TAG, tag_of(1)]
    assert compared.unknown == (tag_of(2),)
    assert (new.wait(TAG)["exit_code"], new.wait(tag_of(1))["exit_code"]) == (7, 8)
    assert new.engine._batch.calls.get("submit", 0) == 0


@pytest.mark.parametrize("script", ["", "echo\n", "#!/bin/sh\r\n", "#!/bin/sh\n\0"])
def test_bad_scripts_are_rejected_for_good(start_engine, site, script):
    engine = start_engine()
    message = submit_of(TAG, "x")
    answer = engine.engine.handle(messages.Submit(TAG, 1, script, message.script_sha256))
    assert (answer.reason, answer.transient) == ("invalid_request", False)
    assert not site.jobs.exists()


@pytest.mark.parametrize("tag", ["../evil", ".", "", "j/../../../../tmp/x"])
def test_hostile_tags_reach_no_file(start_engine, site, tag):
    engine = start_engine()
    assert engine.submit(tag, "true").reason == "invalid_request"
    for message in (messages.Cancel(tag), messages.Delete(tag), messages.Compare((tag,))):
        assert engine.engine.handle(message).code == "invalid_request"
    assert not site.jobs.exists()


def test_an_unknown_request_is_answered_with_an_error(start_engine):
    assert start_engine().engine.handle(messages.Done()).code == "unknown_message"


class Full(Filesystem):
    """Nothing can be written below `where`."""

    where = ""
    error = 28

    def write_durably(self, path, data, mode=0o600):
        if self.where and path.startswith(self.where):
            raise errors.NotStored(path, OSError(self.error, os.strerror(self.error)))
        super().write_durably(path, data, mode)


@pytest.mark.parametrize(
    ("error", "reason"), [(28, "no_space"), (122, "no_space"), (116, "not_stored")]
)
def test_a_job_that_could_not_be_stored_is_not_submitted(start_engine, site, error, reason):
    fs = Full()
    engine = start_engine(fs=fs)
    fs.where, fs.error = str(site.jobs), error
    answer = engine.submit(TAG, f"echo ran >>{site.ledger}")
    assert (answer.reason, answer.transient) == (reason, True)
    assert str(site.jobs / TAG) in answer.message
    fs.where = ""
    assert isinstance(
        engine.submit(TAG, f"echo ran >>{site.ledger}", attempt=2), messages.Submitted
    )
    engine.wait(TAG)
    assert site.ran() == ["ran"]


def test_a_retired_engine_does_nothing_more(start_engine, site):
    old = start_engine(generation=1)
    old.submit(TAG, "sleep 1")
    new = start_engine(generation=2)
    answer = old.submit(tag_of(1), f"echo ran >>{site.ledger}")
    assert answer.code == "retired"
    assert old.engine.is_retired.is_set()
    assert old.engine.events_after(0) == []
    assert new.wait(TAG)["outcome"] == "completed"
    assert site.ran() == []


def test_a_retired_engine_cancels_nothing(start_engine):
    old = start_engine(generation=1)
    job = JobRef(TAG, old.submit(TAG, "sleep 1").scheduler_job_id)
    new = start_engine(generation=2)
    with pytest.raises(errors.Fenced):
        old.engine._batch.cancel(job)
    old.engine.handle(messages.Cancel(TAG))
    wait_until(old.engine.is_retired.is_set)
    assert new.wait(TAG)["outcome"] == "completed"
    assert "cancel" not in old.engine.status()["commands"]


def test_greetings_are_judged(start_engine):
    engine = start_engine(generation=3).engine

    def greet(**changes):
        fields = {"versions": (1,), "instance_id": "test", "cluster_id": 1, "epoch": 5, **changes}
        return engine.welcome(messages.Hello(**fields))

    welcome = greet(generation=3)
    assert (welcome.epoch, welcome.generation, welcome.scheduler) == (5, 3, "local")
    assert greet(epoch=4).code == "stale_epoch"
    assert greet(epoch=4).epoch == 5
    assert greet(instance_id="other").code == "wrong_instance"
    assert greet(versions=(99,)).code == "version_mismatch"
    assert greet(generation=4).code == "retired"
    assert greet(epoch=6).epoch == 6


def test_a_cursor_that_does_not_fit_begins_a_new_outbox(start_engine):
    engine = start_engine()
    engine.submit(TAG, "true")
    engine.wait(TAG)
    hello = messages.Hello((1,), "test", 1, epoch=1, outbox_id="", cursor=0)
    welcome = engine.engine.welcome(hello)
    fields = {**hello.__dict__, "outbox_id": welcome.outbox_id}
    same = engine.engine.welcome(messages.Hello(**{**fields, "cursor": welcome.last_seq}))
    assert same.outbox_id == welcome.outbox_id
    other = engine.engine.welcome(messages.Hello(**{**fields, "cursor": welcome.last_seq + 1}))
    assert other.outbox_id != welcome.outbox_id
    assert [event.seq for event in engine.engine.events_after(0)] == [1, 2, 3][: other.last_seq]


def test_the_status_can_be_printed(start_engine):
    engine = start_engine()
    engine.submit(TAG, "true")
    engine.wait(TAG)
    assert json.loads(json.dumps(engine.engine.status()))["jobs"] == {"ended": 1}
