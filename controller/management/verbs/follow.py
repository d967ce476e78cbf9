"""Following a procedure: each step is one line as it comes, the end is the command's own."""

from __future__ import annotations

import time
from collections.abc import Callable

from ... import errors, queries
from ...models import Procedure, ProcedureState, Step
from .terminal import Console

POLL_S = 0.2
LIMIT_S = 90.0
HEAD = f"{'OUTCOME':<9}{'SECONDS':>8}  STEP"


def follow(
    console: Console, tell: Callable[[str], None], procedure: Procedure, limit_s: float = LIMIT_S
) -> None:
    """Tell each step until the procedure has ended. Raises Refused if it failed, and Timeout."""
    deadline = time.monotonic() + limit_s
    seen = 0
    bar = console.bar()
    while True:
        now = Procedure.objects.select_related("cluster").filter(pk=procedure.pk).first()
        if now is None:
            bar.clear()
            raise errors.NotFound(f"{_name(procedure)} was forgotten: ask for it again.")
        for step in now.steps.filter(pk__gt=seen):
            bar.clear()
            if not seen:
                tell(HEAD)
            seen = step.pk
            tell(line(step))
        if not now.is_active:
            break
        if time.monotonic() > deadline:
            bar.clear()
            raise errors.Timeout(_unfinished(now, limit_s))
        bar.show(f"{_name(now)}: {now.get_state_display()}")
        time.sleep(POLL_S)  # another process writes the rows; nothing tells us
    bar.clear()
    if now.state == ProcedureState.FAILED:
        raise errors.Refused(f"{_name(now)} failed ({now.reason}): {now.detail}")
    tell(f"{_name(now)}: done. {now.detail}".rstrip())


def line(step: Step) -> str:
    """One step as a line under HEAD."""
    said = f": {step.detail}" if step.detail else ""
    return f"{step.outcome:<9}{step.took_s:>8.2f}  {step.name}{said}"


def _unfinished(procedure: Procedure, limit_s: float) -> str:
    if procedure.state == ProcedureState.RUNNING:
        why = "Its worker is still at it."
    elif queries.is_worker_alive():
        why = "No worker has taken it up yet."
    else:
        why = "No worker runs: start one (celery -A workers worker -Q hpc)."
    return f"{_name(procedure)} has not ended within {limit_s:g} s. {why} It stays asked for."


def _name(procedure: Procedure) -> str:
    return f"Cluster {procedure.cluster}, {procedure.get_kind_display()}"
