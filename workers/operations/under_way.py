"""The transfers under way in this process: how many may be, how far each is, and how each ends.

Rules:
- Nothing waits here: beyond the bound whoever asks is told so at once, so that questions about
  files always find a thread.
- One thread tells the database every REPORT_S how far all are, stalled ones too: a row that is
  silent for a minute counts as abandoned. What can't be told now is told later.
- Whoever went away, or the end of this process, ends the data link at once: what waits for the
  cluster is woken by that, and the process on the cluster stops reading.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django import db

from controller import conf
from controller import errors as controller_errors
from controller.models.transfer import TransferState
from controller.relay.connection import Connection
from controller.relay.frames import Bytes, Frame, Kind
from controller.services import transfers

from ..links import data

logger = logging.getLogger(__name__)

REPORT_S = 5.0
WATCH_S = 60.0
FOR_QUESTIONS = 8
"""Threads of a process that transfers leave to questions."""
RETRY_AFTER_S = 5.0
STOP_LIMIT_S = 2.0
LAST_WORDS_LIMIT_S = 5.0
GONE = "Whoever asked for the file has gone."
STOPPED = "The files worker was stopped: start the transfer again."


class WebGone(Exception):
    """The other end of the relay closed, or died."""


class WebStalled(Exception):
    """The other end of the relay took, or gave, nothing for too long."""


class Carried:
    """One transfer: used by one thread, but for `stop` and `done_bytes`."""

    def __init__(self, transfer_id: UUID, relay: Connection) -> None:
        self.transfer_id = transfer_id
        self.relay = relay
        self.done_bytes = 0
        self.is_started = False
        self.stopped = ""
        """Why it was ended from outside: GONE or STOPPED."""
        self._lock = threading.Lock()
        self._link: data.DataLink | None = None

    @contextmanager
    def holding(self, link: data.DataLink) -> Iterator[None]:
        """Inside, `stop` ends the link. Raises WebGone if it was stopped before."""
        with self._lock:
            if self.stopped:
                raise WebGone(self.stopped)
            self._link = link
        try:
            yield
        finally:
            with self._lock:
                self._link = None

    def stop(self, reason: str) -> None:
        """End it from another thread; the first reason stays."""
        with self._lock:
            self.stopped = self.stopped or reason
            if self._link is not None:
                self._link.abort()

    def watch(self) -> None:
        """Stop it when the other end of the relay has gone; in a thread, until one end closes."""
        while not self.relay.wait_gone(WATCH_S):
            continue
        self.stop(GONE)

    def send(self, kind: Kind, payload: Bytes = b"") -> None:
        """Over the relay. Raises WebGone, WebStalled."""
        with _web():
            self.relay.send(kind, payload)

    def receive(self) -> Frame:
        """From the relay. Raises WebGone, WebStalled."""
        with _web():
            return self.relay.receive(conf.get().transfer_stall_s)


@contextmanager
def _web() -> Iterator[None]:
    try:
        yield
    except controller_errors.TransferBroken as problem:
        raise WebGone(GONE) from problem
    except controller_errors.Timeout as problem:
        limit_s = conf.get().transfer_stall_s
        raise WebStalled(
            f"Whoever asked for the file stood still for {limit_s:g} s (HPC_TRANSFER_STALL_S):"
            " start it again."
        ) from problem


class UnderWay:
    """All of one process. Thread-safe."""

    def __init__(self, report_s: float = REPORT_S) -> None:
        self._report_s = report_s
        self._changed = threading.Condition()
        self._carried: set[Carried] = set()
        self._untold: dict[UUID, Callable[[], object]] = {}
        self._threads: int | None = None
        self._is_closing = False
        self._reporter: threading.Thread | None = None

    def set_up(self, threads: int) -> None:
        """A worker with so many threads starts."""
        with self._changed:
            self._threads, self._is_closing = threads, False

    @property
    def most(self) -> int:
        """How many may be under way at once."""
        threads = self._threads or conf.get().files_threads
        return max(1, threads - FOR_QUESTIONS)

    @contextmanager
    def carrying(self, transfer_id: UUID, relay: Connection) -> Iterator[Carried]:
        """One more inside. Raises Busy at once where there are as many as may be."""
        carried = Carried(transfer_id, relay)
        with self._changed:
            self._check_room()
            self._see_to_reporter()
            self._carried.add(carried)
        watcher = threading.Thread(target=carried.watch, name="transfer-watch", daemon=True)
        try:
            watcher.start()
            yield carried
        finally:
            relay.close()  # which ends the watcher
            with self._changed:
                self._carried.remove(carried)
                self._changed.notify_all()

    def finish(self, transfer_id: UUID, state: TransferState, **columns: Any) -> None:
        """End the row, now or as soon as the database can be reached."""

        def tell() -> object:
            return transfers.finish(transfer_id, state, **columns)

        try:
            tell()
        except db.Error as problem:
            logger.warning(
                "transfer.end_not_stored",
                extra={"transfer": str(transfer_id), "problem": str(problem)},
            )
            with self._changed:
                self._untold[transfer_id] = tell
                self._see_to_reporter()

    def count(self) -> int:
        """How many are under way."""
        with self._changed:
            return len(self._carried)

    def close(self) -> None:
        """End all, each with a word to whoever asked: the worker stops. Takes no new ones."""
        with self._changed:
            self._is_closing = True
            carried = list(self._carried)
        for one in carried:
            one.stop(STOPPED)
        if self._are_over():
            return
        with self._changed:
            carried = list(self._carried)
        for one in carried:  # whoever reads so slowly that no word gets through
            one.relay.close()
        if not self._are_over():
            logger.warning("transfer.not_ended", extra={"count": self.count()})

    def last_words(self, limit_s: float = LAST_WORDS_LIMIT_S) -> None:
        """Store the ends that could not be stored, before the process ends. Raises nothing."""
        with self._changed:
            untold = dict(self._untold)
        if not untold:
            return
        thread = threading.Thread(
            target=self._tell, args=({}, untold), name="transfer-last-words", daemon=True
        )
        thread.start()
        thread.join(limit_s)
        with self._changed:
            if self._untold:
                lost = sorted(str(key) for key in self._untold)
                logger.error("transfer.ends_lost", extra={"transfers": lost})

    def _are_over(self) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._carried, STOP_LIMIT_S)

    def _check_room(self) -> None:
        # Called with the lock.
        if self._is_closing:
            raise controller_errors.Unavailable(STOPPED)
        if len(self._carried) >= self.most:
            problem = controller_errors.Busy(
                f"The files worker carries {len(self._carried)} files, as many as its threads"
                " allow (HPC_FILES_THREADS): try again in a few seconds."
            )
            problem.retry_after_s = RETRY_AFTER_S
            raise problem

    # The reporter ---------------------------------------------------------------------------------

    def _see_to_reporter(self) -> None:
        # Called with the lock.
        if self._reporter is None:
            self._reporter = threading.Thread(
                target=self._report, name="transfer-report", daemon=True
            )
            self._reporter.start()

    def _report(self) -> None:
        """Tell the database how far all are, until none is left."""
        while True:
            with self._changed:
                self._changed.wait_for(self._has_nothing_to_tell, self._report_s)
                if self._has_nothing_to_tell():
                    self._reporter = None
                    return
                done = {one.transfer_id: one.done_bytes for one in self._carried}
                untold = dict(self._untold)
            self._tell(done, untold)

    def _has_nothing_to_tell(self) -> bool:
        # Called with the lock.
        return not self._carried and not self._untold

    def _tell(self, done: dict[UUID, int], untold: dict[UUID, Callable[[], object]]) -> None:
        try:
            transfers.progress(done)  # first: a row that is silent for long is given up
            for key, tell in untold.items():
                tell()
                with self._changed:
                    self._untold.pop(key, None)
        except Exception:  # the transfers go on; it is told again
            logger.warning("transfer.progress_not_stored", exc_info=True)
        finally:
            db.connections.close_all()


under_way = UnderWay()
