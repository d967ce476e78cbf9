"""What both ends of a relay have in their hands, whatever carries it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from .. import errors
from .frames import Bytes, Frame, Kind

ACCEPT_LIMIT_S = 10.0
CONNECT_LIMIT_S = 10.0


class Connection(Protocol):
    """Frames to and from one other end.

    One thread may send, another receive, a third wait_gone; close is everybody's.
    Raises errors.Timeout when nothing moves, errors.TransferBroken when the other end is gone.
    """

    def send(self, kind: Kind, payload: Bytes = b"") -> None:
        """Blocks while the other end is slow, for HPC_TRANSFER_STALL_S at most; then it is over."""

    def receive(self, limit_s: float) -> Frame:
        """The next whole frame."""

    async def asend(self, kind: Kind, payload: Bytes = b"") -> None:
        """As send."""

    async def areceive(self, limit_s: float) -> Frame:
        """As receive."""

    def wait_gone(self, limit_s: float) -> bool:
        """Whether the other end went, or this one was closed, within `limit_s`; takes no frame."""

    def close(self) -> None:
        """Tell the other end, wake who waits at this one; harmless when repeated, from anywhere."""


class Listener(Protocol):
    """Waits for the worker of one token."""

    def accept(self, limit_s: float = ACCEPT_LIMIT_S) -> Connection:
        """The worker that has proved itself. Raises Timeout; ends the listening either way."""

    def close(self) -> None:
        """Listen no more."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def nobody_came(limit_s: float) -> errors.Timeout:
    """No worker was there in time."""
    return errors.Timeout(
        f"No files worker took the transfer up within {limit_s:g} s: see that one runs"
        " (celery -A workers worker -Q files -P threads) and has threads to spare; its log tells"
        " if it can't reach this process."
    )


def gone() -> errors.TransferBroken:
    """The other end closed, or died."""
    return errors.TransferBroken("The other end of the transfer is gone: start it again.")


def stalled(limit_s: float) -> errors.Timeout:
    """Nothing moved."""
    return errors.Timeout(
        f"Nothing moved on the transfer for {round(limit_s, 1):g} s: start it again; if it stalls"
        " again, see the files worker's log."
    )


class Usage:
    """Lets go of something only when nobody is at work with it any more.

    A descriptor that is closed under a thread that waits on it may be another file's by then.
    """

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release
        self._lock = threading.Lock()
        self._users = 0
        self.is_ended = False

    def __enter__(self) -> None:
        with self._lock:
            if self.is_ended:
                raise errors.TransferBroken("The transfer was closed at this end.")
            self._users += 1

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Whoever came in, or ended it, is done."""
        with self._lock:
            self._users -= 1
            is_last = self.is_ended and not self._users
        if is_last:
            self._release()

    def end(self) -> bool:
        """Nobody comes in any more; the first one, told by True, wakes those within and leaves."""
        with self._lock:
            if self.is_ended:
                return False
            self.is_ended = True
            self._users += 1
            return True
