"""What a bootstrap did, step by step, as a procedure that people read.

A link that is made anew without a change on the cluster leaves no procedure: its steps are kept
until somebody has asked for them, or something is changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from controller.models import Kind
from controller.services import procedures

from ..links import clock, steps
from ..links.connector import quietly
from .reach import Run

GREETING = "Greet the daemon"
GONE = "The worker that did it is gone. The next one has begun anew."


class Recording:
    """One try to reach a daemon. `procedure_id` is 0 as long as nobody is to read of it."""

    def __init__(self, cluster_id: int, worker: str, run: Run, procedure_id: int = 0) -> None:
        self.procedure_id = procedure_id
        self.reason = self.note = ""
        """What is to be said although the link came up; with a reason it counts as failed."""
        self._cluster_id = cluster_id
        self._worker = worker
        self._run = run
        self._kept: list[steps.Step] = []
        self._greets_since = 0.0

    @property
    def is_asked(self) -> bool:
        """Whether a person waits for it."""
        return bool(self.procedure_id)

    def begin(self) -> None:
        """From here on something is changed on the cluster: what was done is told."""
        if self.procedure_id:
            return
        begun = self._run(lambda: procedures.begin(self._cluster_id, Kind.BOOTSTRAP, self._worker))
        self.procedure_id = begun.pk
        kept, self._kept = self._kept, []
        for step in kept:
            self.record(step)

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
        if self.procedure_id:
            self._end_greeting(steps.DONE, detail)
            procedures.finish(self.procedure_id, self.reason, self.note)

    def failed(self, reason: str, detail: str) -> None:
        """There is no link, for this reason."""
        if self.procedure_id:
            self._end_greeting(steps.FAILED, detail)
            procedures.finish(self.procedure_id, reason, detail)

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
        procedure_id = run(lambda: self._claim(cluster_id))
        made = Recording(cluster_id, self._worker, run, procedure_id)
        with self._lock:
            self._under_way[cluster_id] = made
        return made

    def end(self, cluster_id: int, tell: Callable[[Recording], None]) -> None:
        """Tell the one under way how it ended, if there is one."""
        with self._lock:
            found = self._under_way.pop(cluster_id, None)
        if found is not None:
            tell(found)

    def _claim(self, cluster_id: int) -> int:
        # Whoever left one running held the lease before us.
        procedures.finish_running(cluster_id, Kind.BOOTSTRAP, procedures.WORKER_GONE, GONE)
        claimed = procedures.claim_for(cluster_id, Kind.BOOTSTRAP, self._worker)
        return claimed.pk if claimed is not None else 0
