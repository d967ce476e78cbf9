"""Signals that ask a program to stop, really sent."""

import subprocess
import sys
import textwrap

PROGRAM = """
    import os, signal
    from ops import interruption

    asked = interruption.Interruption()
    asked.install()
    os.kill(os.getpid(), signal.SIGINT)
    done = sum(range(1000))
    try:
        asked.pause(600)
    except interruption.Stopped as stopped:
        print(done, stopped)
    asked.begin_stopping()
    asked.pause(0.05)
    print(asked.is_urgent)
    os.kill(os.getpid(), signal.SIGTERM)
    asked.pause(600)
    print(asked.is_urgent)
"""


def test_a_signal_stops_at_the_next_pause_and_a_second_one_makes_stopping_urgent(checkout):
    program = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    finished = subprocess.run(program, cwd=checkout, capture_output=True, text=True, timeout=60)
    assert finished.stderr == ""
    assert finished.stdout.splitlines() == ["499500 Stopped by SIGINT.", "False", "True"]
