"""A fixed number of threads that carry out requests, with a bounded queue before them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Callable

logger = logging.getLogger(__name__)

Work = Callable[[], object]


class RequestPool:
    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._limit = waiting
        self._waiting: deque[Work] = deque()
        self._changed = threading.Condition()
        self._is_stopped = False
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work) -> bool:
        """Queue `work`; False if the queue is full or the pool stopped."""
        with self._changed:
            if self._is_stopped or len(self._waiting) >= self._limit:
                return False
            self._waiting.append(work)
            self._changed.notify()
            return True

    def stop(self, limit_s: float) -> bool:
        """Take no more work, drop what waits, and wait for what runs; True if all of it ended."""
        deadline = time.monotonic() + limit_s
        with self._changed:
            self._is_stopped = True
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_stopped)
                if not self._waiting:
                    return
                work = self._waiting.popleft()
            try:
                work()
            except Exception:
                logger.exception("request_failed")
