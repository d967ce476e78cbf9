"""Threads that send for callers who can't wait."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from controller import senders

FORK = """\
import os, sys
from controller import senders
assert senders.bounded(lambda: None, 60) == ""
pid = os.fork()
if not pid:
    os._exit(senders.bounded(lambda: None, 60) != "")
sys.exit(os.waitpid(pid, 0)[1])
"""


def test_a_thread_that_sends_is_used_again() -> None:
    seen: set[int] = set()
    for _ in range(20):
        assert senders.bounded(lambda: seen.add(threading.get_ident()), 60) == ""
    assert len(seen) == 1


def test_why_it_failed_is_told_and_the_thread_goes_on() -> None:
    def fail() -> None:
        raise OSError("Connection refused.\nAnd more.")

    assert senders.bounded(fail, 60) == "Connection refused."
    assert senders.bounded(lambda: None, 60) == ""


def test_who_is_stuck_holds_up_nobody_for_long_and_comes_back() -> None:
    may_end, seen = threading.Event(), list[int]()

    def wait() -> None:
        assert may_end.wait(60)
        seen.append(threading.get_ident())

    assert senders.bounded(wait, 0.01) == "no answer of the broker in 0.01 s"
    assert senders.bounded(lambda: None, 60) == ""
    may_end.set()


def test_no_more_threads_are_kept_than_are_of_use() -> None:
    start = threading.Barrier(senders.KEPT + 5)
    ended = threading.Semaphore(0)
    for _ in range(senders.KEPT + 5):
        senders.soon(lambda: (start.wait(60), ended.release()))
    for _ in range(senders.KEPT + 5):
        assert ended.acquire(timeout=60)
    assert senders.bounded(lambda: None, 60) == ""
    assert len(senders._idle) <= senders.KEPT


def test_a_forked_child_makes_threads_of_its_own(checkout: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORK], cwd=checkout, timeout=60)
    assert done.returncode == 0
