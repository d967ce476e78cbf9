"""A few threads for the calls of many links: in order for each key, side by side between keys."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from . import clock, errors

logger = logging.getLogger(__name__)

T = TypeVar("T")

LIMIT_PER_KEY = 1000
"""Calls that may wait for one key."""


@dataclass(frozen=True)
class _Call:
    run: Callable[[], Any]
    future: Future[Any]


class KeyedPool:
    """Runs posted calls; those of one key never overlap and never overtake each other.

    `tidy` runs in the calling thread around each call (it returns database connections).
    """

    def __init__(self, name: str, threads: int, tidy: Callable[[], None] = lambda: None) -> None:
        self._tidy = tidy
        self._changed = threading.Condition()
        self._waiting: dict[Hashable, deque[_Call]] = {}
        self._ready: deque[Hashable] = deque()
        self._is_closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            for number in range(1, threads + 1)
        ]
        for thread in self._threads:
            thread.start()

    def post(self, key: Hashable, run: Callable[[], T]) -> Future[T]:
        """Queue `run` behind the other calls of `key`. Raises LinkOverfull over the bound."""
        future: Future[T] = Future()
        with self._changed:
            if self._is_closed:
                future.cancel()
                return future
            calls = self._waiting.get(key)
            if calls is None:
                self._waiting[key] = calls = deque()
                self._ready.append(key)
            if len(calls) >= LIMIT_PER_KEY:
                raise errors.LinkOverfull(f"{len(calls)} calls wait for {key}.")
            calls.append(_Call(run, future))
            self._changed.notify()
        return future

    def call(self, key: Hashable, run: Callable[[], T], limit_s: float) -> T:
        """Run `run` in its turn and return what it returns; TimeoutError after `limit_s`."""
        return self.post(key, run).result(timeout=limit_s)

    def is_idle(self, key: Hashable) -> bool:
        """Whether no call of `key` waits or runs."""
        with self._changed:
            return key not in self._waiting

    def close(self, limit_s: float) -> bool:
        """Finish what is queued within `limit_s`, then end; True if all was finished."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        ends_at = clock.now() + limit_s
        for thread in self._threads:
            thread.join(max(0.0, ends_at - clock.now()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while (key := self._next_key()) is not None:
            with self._changed:
                call = self._waiting[key].popleft()
            self._run(call)
            with self._changed:
                if self._waiting[key]:
                    self._ready.append(key)
                    self._changed.notify()
                else:
                    del self._waiting[key]

    def _next_key(self) -> Hashable | None:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._is_closed)
            return self._ready.popleft() if self._ready else None

    def _run(self, call: _Call) -> None:
        if not call.future.set_running_or_notify_cancel():
            return
        try:
            self._tidy()
            result = call.run()
        except BaseException as problem:  # noqa: BLE001 - handed to whoever waits for the future
            call.future.set_exception(problem)
        else:
            call.future.set_result(result)
        finally:
            self._finish()

    def _finish(self) -> None:
        try:
            self._tidy()
        except Exception:
            logger.exception("pool.tidy_failed")
