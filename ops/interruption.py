"""Signals that ask the program to stop: noted when they come, acted upon only where it waits."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Stopped(Exception):
    """Someone asked us to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(f"Stopped by {signal.Signals(number).name}.")
        self.number = number


class Interruption:
    """Turns signals into `Stopped`, raised by `pause` alone: no step is cut in the middle.

    After `begin_stopping` nothing is raised any more; one more signal then sets `is_urgent`.
    `when_awake` is called when `pause` was ended by a signal, such as that of a child's end.
    """

    def __init__(self, when_awake: Callable[[], None] = lambda: None) -> None:
        self._when_awake = when_awake
        self.received: list[int] = []
        self.is_urgent = False
        self._is_stopping = False
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def install(self) -> None:
        """Take over the signals, also those that we were started with as ignored."""
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in ASKING:
            signal.signal(number, self._note)
        # Only to wake `pause` when a child ends.
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def close(self) -> None:
        """Ignore the signals from now on: nothing is left to stop, and the exit status stands."""
        for number in ASKING:
            signal.signal(number, signal.SIG_IGN)

    def ask(self, number: int) -> None:
        """Ask to stop, as a signal does."""
        self._note(number, None)

    def pause(self, limit_s: float) -> None:
        """Wait until a signal comes, a child ends or the time is over; raise Stopped if asked."""
        self._raise_if_asked()
        select.select([self._reader], [], [], limit_s)
        try:
            os.read(self._reader, 4096)
        except BlockingIOError:
            return  # the time is over
        self._when_awake()
        self._raise_if_asked()

    def begin_stopping(self) -> None:
        """From now on `pause` only waits."""
        self._is_stopping = True

    def _note(self, number: int, frame: object) -> None:
        self.is_urgent = self._is_stopping
        self.received.append(number)

    def _raise_if_asked(self) -> None:
        if self.received and not self._is_stopping:
            raise Stopped(self.received[0])
