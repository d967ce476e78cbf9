"""Slurm's daemons stop and start, while jobs are submitted, run and end."""

from __future__ import annotations

import pytest

from cluster_client.protocol import messages

from .conftest import new_tag, submit_until_answered, wait_until


@pytest.fixture
def controller(slurm_server):
    """The controller, running again afterwards."""
    yield slurm_server
    if not slurm_server.is_controller_up():
        slurm_server.start_controller()


@pytest.fixture
def accounting(slurm_server):
    yield slurm_server
    if not slurm_server.is_accounting_up():
        slurm_server.start_accounting()


def test_a_restart_of_the_controller_changes_nothing(start_engine, controller, site):
    engine, tag = start_engine(), new_tag()
    engine.submit(tag, f"echo ran >>{site.ledger}; sleep 3")
    engine.wait(tag, "running")
    controller.stop_controller()
    controller.start_controller()
    assert engine.wait(tag)["outcome"] == "completed"
    assert site.ran() == ["ran"]


def test_while_the_controller_is_down_nothing_ends_and_nothing_is_lost(
    start_engine, controller, site
):
    engine, runs, waits = start_engine(command_limit_s=20.0), new_tag(), new_tag()
    engine.submit(runs, f"echo ran >>{site.ledger}; exit 7")
    engine.wait(runs, "submitted")
    wait_until(site.ran)
    controller.stop_controller()
    before = [event.kind for event in engine.read()]
    answer = engine.submit(waits, f"echo ran >>{site.ledger}", limit_s=20.0)
    assert (answer.reason, answer.transient) == ("unavailable", True), answer
    assert "Unable to contact slurm controller" in answer.message
    calls = engine.engine.status()["commands"]["queue"]
    wait_until(lambda: engine.engine.status()["commands"]["queue"] > calls + 1)
    assert "blocked" not in [event.kind for event in engine.read()][len(before) :]
    controller.start_controller()
    assert engine.wait(runs, limit_s=60)["exit_code"] == 7
    submit_until_answered(engine, waits, f"echo ran >>{site.ledger}", attempt=2)
    assert engine.wait(waits)["outcome"] == "completed"
    assert site.ran() == ["ran", "ran"]


def test_a_controller_that_answers_nobody_leaves_a_submission_unresolved(
    start_engine, controller, site
):
    engine, tag = start_engine(command_limit_s=2.0), new_tag()
    controller.freeze_controller()
    try:
        answer = engine.submit(tag, f"echo ran >>{site.ledger}", limit_s=2.0)
    finally:
        controller.thaw_controller()
    assert (answer.code, answer.transient) == ("unresolved", True)
    # What sbatch had sent is taken by the thawed controller; it is found, not sent again.
    assert engine.wait(tag, limit_s=60)["outcome"] == "completed"
    assert engine.engine.status()["commands"]["submit"] == 1
    assert site.ran() == ["ran"]


def test_without_its_accounting_ends_are_told_and_what_was_used_later(
    start_engine, accounting, site
):
    engine, good, bad, last = start_engine(), new_tag(), new_tag(), new_tag()
    accounting.stop_accounting()
    engine.submit(good, "sleep 0.5")
    engine.submit(bad, "sleep 0.5; exit 143")
    assert engine.wait(good)["outcome"] == "completed"
    assert engine.wait(bad)["signal"] == 15
    assert "accounting" not in [event.kind for event in engine.read()]
    accounting.start_accounting()
    # Once it is asked again; the first pause after a failure is 10 s.
    assert engine.wait(good, "accounting", limit_s=60)["elapsed_s"] >= 0
    engine.submit(last, "true")
    engine.wait(last, "accounting")


def test_a_look_up_without_accounting_is_no_answer(start_engine, accounting, site):
    engine = start_engine()
    accounting.stop_accounting()
    answer = engine.submit(new_tag(), f"echo ran >>{site.ledger}", attempt=2)
    assert isinstance(answer, messages.Error)
    assert (answer.code, answer.transient) == ("unresolved", True)
    assert site.ran() == []
