"""Threads that send, so that no caller waits longer than he wants to; kept from one to the next.

Celery makes a result backend for each thread that sends, which costs more than the sending.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

KEPT = 16

Work = Callable[[], object]


class _Sender:
    """One thread, for one piece of work at a time; a stuck one comes back once it is free."""

    def __init__(self) -> None:
        self._work: SimpleQueue[tuple[Work, Work]] = SimpleQueue()
        threading.Thread(target=self._run, name="sender", daemon=True).start()

    def do(self, work: Work, then: Work) -> None:
        """Run `work`, and `then` once this sender is free again; neither may raise."""
        self._work.put((work, then))

    def _run(self) -> None:
        while True:
            work, then = self._work.get()
            work()
            is_kept = len(_idle) < KEPT
            if is_kept:
                _idle.append(self)
            then()
            if not is_kept:
                return


_idle: deque[_Sender] = deque()
os.register_at_fork(after_in_child=_idle.clear)  # the child has none of its parent's threads


def bounded(send: Work, limit_s: float) -> str:
    """Run `send` on another thread and wait for at most `limit_s`; why it failed, or ""."""
    failures: list[str] = []
    is_over = threading.Event()

    def run() -> None:
        try:
            send()
        except Exception as error:  # noqa: BLE001  # told, in words
            failures.append(first_line(error))

    _free().do(run, is_over.set)
    if not is_over.wait(limit_s):
        return f"no answer of the broker in {limit_s:g} s"
    return failures[0] if failures else ""


def soon(work: Work) -> None:
    """Run `work`, which raises nothing, on another thread; nobody waits for it."""
    _free().do(work, lambda: None)


def first_line(error: BaseException) -> str:
    """What an error says, or at least its kind."""
    return (str(error) or type(error).__name__).splitlines()[0]


def _free() -> _Sender:
    try:
        return _idle.pop()
    except IndexError:
        return _Sender()
