"""Who holds which link, when workers come, stop, die and freeze."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from controller.lifecycle import JobStatus
from controller.models import JobEvent
from controller.services import clusters
from tests.stack import Stack

FREEZE_S = 20.0
"""Longer than any limit of a lease or a link in these tests."""


def test_two_workers_share_the_links(any_stack: Stack) -> None:
    stack = any_stack
    stack.start_worker()
    made = [stack.add_cluster(f"c{number}") for number in range(4)]
    for cluster in made:
        stack.wait_up(cluster)
    assert len(set(stack.holders())) == 1
    stack.start_worker()

    def is_even() -> bool:
        holders = stack.holders()
        return len(holders) == 4 and {holders.count(holder) for holder in holders} == {2}

    stack.wait(is_even, "two links each")
    for cluster in made:
        stack.wait_up(cluster)
        assert stack.wait_status(stack.submit(cluster)).status is JobStatus.COMPLETED


def test_a_killed_worker_is_replaced(any_stack: Stack) -> None:
    stack = any_stack
    first = stack.start_worker()
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    holder = stack.link(cluster).holder
    stack.start_worker()
    stack.wait(lambda: stack.live_workers() == 2, "the second worker")
    job = stack.submit(cluster, stack.script_until(stack.directory / "go"))
    stack.wait_status(job, JobStatus.RUNNING)
    first.send(signal.SIGKILL)
    begun_at = time.monotonic()
    stack.wait(
        lambda: (
            stack.link(cluster).holder not in ("", holder) and stack.link(cluster).state == "up"
        ),
        "the second worker to take over",
    )
    assert time.monotonic() - begun_at < 15
    (stack.directory / "go").touch()
    assert stack.wait_status(job).status is JobStatus.COMPLETED
    assert len(stack.runs()) == 1


def test_an_idle_worker_stops_cleanly_within_three_seconds(stack: Stack) -> None:
    worker = stack.start_worker()
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    assert stack.stop_worker(worker, limit_s=30) < 9  # three times the goal
    assert stack.holders() == []
    assert stack.live_workers() == 0
    assert stack.link(cluster).state == "down"


def test_a_frozen_worker_sends_nothing_once_another_has_taken_over(stack: Stack) -> None:
    first = stack.start_worker()
    cluster = stack.add_cluster()
    before = stack.wait_up(cluster)
    stack.freeze(first)
    frozen_at = time.monotonic()
    stack.start_worker()
    job = stack.submit(cluster)
    stack.wait(
        lambda: stack.link(cluster).epoch > before.epoch and stack.link(cluster).state == "up",
        "the second worker to take over",
    )
    stack.wait(lambda: time.monotonic() - frozen_at >= FREEZE_S, "the freeze to last")
    first.send(signal.SIGCONT)
    assert stack.wait_status(job).status is JobStatus.COMPLETED
    more = [stack.wait_status(stack.submit(cluster)) for _ in range(3)]
    assert all(each.status is JobStatus.COMPLETED for each in more)
    assert len(stack.runs()) == 4
    claims = JobEvent.objects.filter(event="claim").values_list("data", flat=True)
    assert all(claim["epoch"] > before.epoch for claim in claims)
    assert stack.link(cluster).state == "up"


def test_a_worker_frozen_alone_greets_again_over_the_same_link(stack: Stack) -> None:
    worker = stack.start_worker()
    cluster = stack.add_cluster()
    before = stack.wait_up(cluster)
    stack.freeze(worker)
    job = stack.submit(cluster)
    time.sleep(6)  # longer than the lease lives
    worker.send(signal.SIGCONT)
    assert stack.wait_status(job).status is JobStatus.COMPLETED
    assert len(stack.runs()) == 1
    after = stack.link(cluster)
    assert after.generation == before.generation


def test_a_link_that_is_not_wanted_is_let_go(stack: Stack) -> None:
    stack.start_worker()
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    clusters.disconnect(cluster)
    stack.wait(lambda: stack.link(cluster).holder == "", "the link to be let go", 5)
    clusters.connect(cluster)
    stack.wait_up(cluster)


def test_a_missing_client_is_put_there_with_its_steps_recorded(stack: Stack) -> None:
    place = stack.directory / "none" / "yet"
    stack.start_worker()
    cluster = stack.add_cluster(client_path=str(place))
    stack.wait_up(cluster)
    assert (place / "client.py").exists()
    (procedure,) = cluster.procedures.all()
    stack.wait(lambda: not procedure.refresh_from_db() and not procedure.is_active, "its end")
    steps = {step.name: step.outcome for step in procedure.steps.all()}
    assert steps["Upload the client"] == steps["Greet the daemon"] == "done"
    stack.client_path = place


def test_a_missing_python_blocks_the_link_with_what_to_do(stack: Stack) -> None:
    stack.start_worker()
    cluster = stack.add_cluster(python="/nowhere/python3")
    stack.wait(lambda: stack.link(cluster).state == "blocked", "the link to be blocked")
    link = stack.link(cluster)
    assert link.blocked_reason == "no_python"
    assert "/nowhere/python3" in link.blocked_detail
    assert link.not_before is None
    clusters.change(cluster, python=sys.executable)
    clusters.connect(cluster)
    stack.wait_up(cluster)


def test_a_daemon_that_hangs_is_replaced_and_retires_when_it_wakes(stack: Stack) -> None:
    stack.start_worker({"HPC_CONNECT_TIMEOUT_S": "2"})
    cluster = stack.add_cluster()
    seen = stack.wait_up(cluster)
    running = stack.submit(cluster, stack.script_until(stack.directory / "go"))
    stack.wait_status(running, JobStatus.RUNNING)
    pid = seen.daemon_pid
    assert pid is not None
    with stack.frozen(pid):
        stack.wait(lambda: stack.link(cluster).generation > seen.generation, "a newer daemon")
        stack.wait_up(cluster)
        assert stack.wait_status(stack.submit(cluster)).status is JobStatus.COMPLETED
    stack.wait(lambda: not Path(f"/proc/{pid}").exists(), "the old daemon to retire")
    assert stack.link(cluster).state == "up"
    (stack.directory / "go").touch()
    assert stack.wait_status(running).status is JobStatus.COMPLETED
    assert len(stack.runs()) == 2
