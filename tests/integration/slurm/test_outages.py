"""Slurm's daemons stop and start, while jobs are submitted, run and end."""

from __future__ import annotations

import pytest

from cluster_client.protocol import messages

from .conftest import new_tag, wait_until


@pytest.fixture
def controller(slurm_server):
    """The controller, running again afterwards."""
    yield slurm_server
    if not slurm_server.is_controller_up():
        slurm_server.start_controller()


def test_a_restart_of_controller_and_node_changes_nothing(start_engine, controller, site):
    engine, tag, node = start_engine(), new_tag(), controller.nodes[1]
    go_on = site.directory / "go-on"
    body = f"#SBATCH -w {node}\necho ran >>{site.ledger}; until [ -e {go_on} ]; do sleep 0.1; done"
    engine.submit(tag, body)
    engine.wait(tag, "running")
    controller.stop_controller()
    controller.kill_node(node)
    controller.start_controller()
    controller.start_node(node)
    wait_until(lambda: controller.is_node_up(node), what="the node's return")
    go_on.touch()
    assert engine.wait(tag)["outcome"] == "completed"
    assert site.ran() == ["ran"]


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


def test_without_its_accounting_ends_are_told_all_the_same(unaccounted):
    good, bad = (unaccounted.ends[tag] for tag in (unaccounted.good, unaccounted.bad))
    assert (good["outcome"], bad["signal"]) == ("completed", 15)
    assert "accounting" not in unaccounted.kinds


def test_a_look_up_without_accounting_is_no_answer(unaccounted):
    answer = unaccounted.look_up
    assert isinstance(answer, messages.Error)
    assert (answer.code, answer.transient) == ("unresolved", True)
    assert unaccounted.site.ran() == []
