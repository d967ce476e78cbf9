"""Processes that detached themselves, found and ended."""

import os
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import pytest

from cluster_client import socket_directory
from ops import leftovers, processes


@pytest.fixture
def client_path(short_directory):
    (short_directory / "client" / "jobs").mkdir(parents=True)
    return short_directory / "client"


def start(argv, **options):
    return subprocess.Popen(argv, start_new_session=True, **options)


def test_a_process_is_known_by_its_mark_its_argv_or_its_place(client_path):
    mark = f"HPC_STACK_ID={uuid.uuid4()}"
    name, _, value = mark.partition("=")
    marked = start(["sleep", "600"], env={**os.environ, name: value})
    named = start(["bash", "-c", "sleep 600; :", f"{client_path}/client.py"])
    placed = start(["sleep", "600"], cwd=client_path / "jobs")
    stranger = start(["sleep", "600"])
    belongings = leftovers.Belongings(mark, client_path, with_jobs=True)
    ours = {marked.pid, named.pid, placed.pid}
    assert processes.wait_until(lambda: ours <= set(belongings.find()), 10)
    # The zombies are children of ours that nobody has waited for yet: they count as ended.
    assert leftovers.end(belongings, time.sleep) == []
    assert stranger.poll() is None
    stranger.kill()
    for process in (marked, named, placed, stranger):
        process.wait()


def test_jobs_are_spared_if_they_shall_go_on(client_path):
    job = start(["sleep", "600"], cwd=client_path / "jobs")
    belongings = leftovers.Belongings("HPC_STACK_ID=none", client_path, with_jobs=False)
    assert leftovers.end(belongings, time.sleep) == []
    assert job.poll() is None
    job.kill()
    job.wait()


def test_who_ignores_the_request_is_killed(client_path):
    script = "trap '' TERM; echo ready; while :; do sleep 1; done"
    stubborn = start(["bash", "-c", script], cwd=client_path, stdout=subprocess.PIPE)
    with stubborn:
        stubborn.stdout.readline()
        belongings = leftovers.Belongings("HPC_STACK_ID=none", client_path, with_jobs=True)
        assert leftovers.end(belongings, time.sleep) == []


def test_the_socket_directory_of_a_killed_daemon_is_removed(client_path):
    key = client_path / "state" / "demo.1"
    key.mkdir(parents=True)
    directory = socket_directory.acquire(str(key))
    listener, path, _ = socket_directory.listen(directory)
    listener.close()
    directory.close()
    assert Path(path).exists()
    leftovers.end(leftovers.Belongings("HPC_STACK_ID=none", client_path, True), time.sleep)
    assert not Path(directory.path).exists()


ADOPTER = """
    import os, subprocess, sys, time
    from ops import orphans, processes

    orphans.adopt()
    own = processes.start("own", ["sleep", "600"])
    # The shell ends at once and leaves the program that it put into the background.
    script = "sleep 600 >/dev/null 2>&1 & echo $!"
    left = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    orphan = int(left.stdout)
    print(orphans.adopted() == [orphan])
    os.kill(orphan, 9)
    def is_gone():
        orphans.collect()
        return orphans.adopted() == []
    print(processes.wait_until(is_gone, 10), own.has_ended)
    processes.stop(own)
"""


def test_orphans_come_to_us_and_are_collected_and_what_we_started_is_left_alone(checkout):
    program = [sys.executable, "-c", textwrap.dedent(ADOPTER)]
    finished = subprocess.run(program, cwd=checkout, capture_output=True, text=True, timeout=60)
    assert finished.stderr == ""
    assert finished.stdout.split() == ["True", "True", "False"]
