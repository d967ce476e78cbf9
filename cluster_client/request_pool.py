"""A fixed number of threads that carry out requests, with a bounded queue before them."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Callable, Optional

logger = logging.getLogger(__name__)

Work = Callable[[], None]


class RequestPool:
    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._queue: queue.Queue[Optional[Work]] = queue.Queue(waiting)
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        self._is_stopped = threading.Event()
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work) -> bool:
        """Queue `work`; False if the queue is full or the pool stopped."""
        if self._is_stopped.is_set():
            return False
        try:
            self._queue.put_nowait(work)
        except queue.Full:
            return False
        return True

    def stop(self, limit_s: float) -> bool:
        """Take no more work, drop what waits, and wait for what runs; True if all of it ended."""
        self._is_stopped.set()
        deadline = time.monotonic() + limit_s
        while not self._queue.empty():
            try:
                self._queue.get_nowait()
            except queue.Empty:
                break
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while True:
            work = self._queue.get()
            if work is None:
                return
            try:
                work()
            except Exception:
                logger.exception("request_failed")
