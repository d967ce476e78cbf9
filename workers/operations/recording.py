"""What a bootstrap did, step by step, as a procedure that people read.

A link that is made anew without a change on the cluster leaves no procedure: its steps are kept
until something is changed. Of what is tried again and again, the first failure and the success at
last are told.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from controller.models import Kind
from controller.services import links, procedures

from ..links import clock, steps
from ..links.connector import quietly
from .reach import Run

GREETING = "Greet the daemon"
GONE = "The worker that did it is gone. The next one has begun anew."


class Recording:
    """One try to reach a daemon. `procedure_id` is 0 as long as nobody is to read of it."""

    def __init__(
        self,
        cluster_id: int,
        worker: str,
        run: Run,
        procedure_id: int = 0,
        *,
        is_retry: bool = False,
    ) -> None:
        self.procedure_id = procedure_id
        self.is_asked = bool(procedure_id)
        """Whether a person waits for it."""
        self.reason = self.note = ""
        """What is to be said although the link came up; with a reason it counts as failed."""
        self._cluster_id = cluster_id
        self._worker = worker
        self._run = run
        self._is_retry = is_retry
        self._has_changed = False
        self._kept: list[steps.Step] = []
        self._greets_since = 0.0

    def begin(self) -> None:
        """From here on something is changed on the cluster: what was done is told."""
        self._has_changed = True
        if not self.procedure_id and not self._is_retry:
            self._run(self._begin)

    def record(self, step: steps.Step) -> None:
        """Keep or write a step; a database in trouble does not stop a bootstrap."""
        if not self.procedure_id:
            self._kept.append(step)
            return
        quietly(lambda: self._run(lambda: self._write(step)))

    def greets(self) -> None:
        """The channel is there: what is left is the greeting."""
        self._greets_since = clock.now()

    # On a thread that may use the database ------------------------------------------------------

    def came_up(self, detail: str) -> None:
        """The daemon has greeted."""
        if self._has_changed and not self.procedure_id:
            self._begin()
        if self.procedure_id:
            self._end_greeting(steps.DONE, detail)
            procedures.finish(self.procedure_id, self.reason, self.note)

    def failed(self, reason: str, detail: str) -> None:
        """There is no link, for this reason."""
        if self.procedure_id:
            self._end_greeting(steps.FAILED, detail)
            procedures.finish(self.procedure_id, reason, detail)

    def _begin(self) -> None:
        begun = procedures.begin(self._cluster_id, Kind.BOOTSTRAP, self._worker)
        self.procedure_id = begun.pk
        kept, self._kept = self._kept, []
        for step in kept:
            self._write(step)

    def _end_greeting(self, outcome: str, detail: str) -> None:
        if self._greets_since:
            took_s = clock.now() - self._greets_since
            self._write(steps.Step(GREETING, outcome, took_s, detail))

    def _write(self, step: steps.Step) -> None:
        procedures.note(self.procedure_id, step.name, step.outcome, step.took_s, step.detail)


class Recordings:
    """Those under way in this process, by cluster."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._lock = threading.Lock()
        self._under_way: dict[int, Recording] = {}

    def take_up(self, cluster_id: int, run: Run) -> Recording:
        """The one under way, or a new one; of the procedure that waits, if one does."""
        with self._lock:
            found = self._under_way.get(cluster_id)
        if found is not None:
            return found
        procedure_id, is_retry = run(lambda: self._claim(cluster_id))
        made = Recording(cluster_id, self._worker, run, procedure_id, is_retry=is_retry)
        with self._lock:
            self._under_way[cluster_id] = made
        return made

    def note(self, cluster_id: int) -> str:
        """What is to be said of the link although it comes up."""
        with self._lock:
            found = self._under_way.get(cluster_id)
        return found.note if found is not None else ""

    def end(self, cluster_id: int, tell: Callable[[Recording], None]) -> bool:
        """Tell the one under way how it ended; says whether somebody had asked for it."""
        with self._lock:
            found = self._under_way.pop(cluster_id, None)
        if found is None:
            return False
        quietly(lambda: tell(found))  # what is told of a link does not keep it from coming up
        return found.is_asked

    def _claim(self, cluster_id: int) -> tuple[int, bool]:
        # Whoever left one running held the lease before us.
        is_owed = procedures.end_abandoned(cluster_id, Kind.BOOTSTRAP, GONE)
        claimed = procedures.claim_for(cluster_id, Kind.BOOTSTRAP, self._worker)
        if claimed is None and is_owed:
            claimed = procedures.begin(cluster_id, Kind.BOOTSTRAP, self._worker)
        return claimed.pk if claimed is not None else 0, links.is_retry(cluster_id)
