"""What the links of one daemon share: which one is current, and the threads for requests."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Optional, Protocol

from .engine import Engine
from .protocol import messages
from .request_pool import RequestPool

logger = logging.getLogger(__name__)

REQUESTS_WAITING = 64
SUBMITS_WAITING = 256
OTHER_THREADS = 4


class Link(Protocol):
    """A connection of the server, as the hub sees it."""

    def run(self) -> None:
        """Read until it ends."""

    def drop(self) -> None:
        """End it now."""

    def say_goodbye(self) -> None:
        """End it because the daemon ends."""


class Hub:
    """The links of one daemon, and which of them is the current one."""

    def __init__(self, engine: Engine, submit_parallel: int) -> None:
        self.engine = engine
        self._submits = RequestPool("submit", submit_parallel, SUBMITS_WAITING)
        self._others = RequestPool("request", OTHER_THREADS, REQUESTS_WAITING)
        self._lock = threading.Lock()
        self._links: set[Link] = set()
        self._current: Optional[Link] = None
        self._epoch = 0
        self._is_stopped = False

    def run(self, link: Link) -> None:
        """Run a link until it ends."""
        with self._lock:
            is_welcome = not self._is_stopped
            if is_welcome:
                self._links.add(link)
        if not is_welcome:
            link.drop()
            return
        try:
            link.run()
        finally:
            with self._lock:
                self._links.discard(link)
                if self._current is link:
                    self._current = None

    def take_over(self, link: Link, epoch: int) -> bool:
        """Make `link` the current one; False if a newer one came first."""
        with self._lock:
            older = self._current
            if older is not None and older is not link and self._epoch > epoch:
                return False
            self._current, self._epoch = link, epoch
        if older is not None and older is not link:
            logger.info("link_replaced", extra={"epoch": epoch})
            older.drop()
        return True

    def pool_for(self, message: object) -> RequestPool:
        """Submissions have threads of their own, so that a slow one holds up no cancel."""
        return self._submits if isinstance(message, messages.Submit) else self._others

    def status(self) -> dict[str, Any]:
        """What `client.py status` tells about links."""
        with self._lock:
            return {"connected": self._current is not None, "epoch": self._epoch}

    def stop(self, limit_s: float) -> None:
        """End all links and wait for the requests that are being carried out."""
        with self._lock:
            self._is_stopped = True
            links = list(self._links)
        deadline = time.monotonic() + limit_s
        drained = [
            pool.stop(max(0.0, deadline - time.monotonic()))
            for pool in (self._submits, self._others)
        ]
        if not all(drained):
            logger.warning("requests_left_behind")
        for link in links:
            link.say_goodbye()
