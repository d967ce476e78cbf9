"""What is done to clusters on request: asked for by a row, claimed by one worker, told in steps.

Rules:
- Of each kind one procedure a cluster is active; who asks meanwhile gets that one.
- Each move is one conditional UPDATE: whoever changes no row has lost. Tasks are nudges; a row
  that waits is found without them.
- Nothing is written to a procedure that has ended: a worker that was given up tells no more.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from ..models import HpcCluster, Kind, Procedure, ProcedureState, Step, StepOutcome
from ..models.procedure import ACTIVE
from ..queries import older_than
from .reports import clean_text

logger = logging.getLogger(__name__)

SILENCE_S = 600.0
"""A procedure that told nothing for so long has nobody who carries it on."""
UNCLAIMED_S = 60.0
"""A bootstrap that waits without a request in its link's row for so long is taken up by nobody."""
KEPT = 20
"""Procedures of a cluster that are kept for people to read."""

WORKER_GONE = "worker_gone"
WORKER_GONE_DETAIL = "The worker that did it is gone: ask for it again."
SUPERSEDED = "superseded"
WITHDRAWN = "withdrawn"


def request(cluster: HpcCluster, kind: str, by: Any = None) -> Procedure:
    """A procedure that waits for a worker; an active one of the kind is returned instead."""
    while True:
        active = _active(cluster.pk, kind).first()
        if active is not None:
            return active
        try:
            with transaction.atomic():
                made = Procedure.objects.create(cluster=cluster, kind=kind, requested_by=by)
        except IntegrityError:  # another one asked in between; it is active, or over already
            continue
        made.refresh_from_db()
        logger.info("procedure requested", extra={"cluster": cluster.pk, "kind": str(kind)})
        return made


def claim(procedure_id: int, worker: str) -> Procedure | None:
    """Take up a procedure that waits; only the winner gets it."""
    waits = Procedure.objects.filter(pk=procedure_id, state=ProcedureState.WAITING)
    claimed = waits.update(state=ProcedureState.RUNNING, started_at=Now(), worker=worker[:200])
    return Procedure.objects.filter(pk=procedure_id).first() if claimed else None


def claim_for(cluster_id: int, kind: str, worker: str) -> Procedure | None:
    """Take up what of the kind waits for the cluster, if anything does."""
    waits = _active(cluster_id, kind).filter(state=ProcedureState.WAITING).first()
    return claim(waits.pk, worker) if waits is not None else None


def begin(cluster_id: int, kind: str, worker: str) -> Procedure:
    """A procedure that is under way at once, requested or not.

    Only who alone may do it calls this (the holder of the link's lease): what another left
    running is ended.
    """
    while True:
        claimed = claim_for(cluster_id, kind, worker)
        if claimed is not None:
            return claimed
        try:
            with transaction.atomic():
                finish_running(cluster_id, kind, SUPERSEDED, "Another worker does it now.")
                return Procedure.objects.create(
                    cluster_id=cluster_id,
                    kind=kind,
                    state=ProcedureState.RUNNING,
                    started_at=Now(),
                    worker=worker[:200],
                )
        except IntegrityError:
            continue  # somebody requested one in between: it waits to be claimed


def note(procedure_id: int, name: str, outcome: str, took_s: float, detail: str = "") -> None:
    """Append a step that has ended; ignored if the procedure is not under way."""
    with transaction.atomic():
        running = Procedure.objects.filter(pk=procedure_id, state=ProcedureState.RUNNING)
        if running.select_for_update().first() is None:
            logger.warning("step of a procedure that is over", extra={"procedure": procedure_id})
            return
        Step.objects.create(
            procedure_id=procedure_id,
            name=clean_text(name, 100),
            outcome=StepOutcome(outcome),
            took_s=max(float(took_s), 0.0),
            detail=clean_text(detail),
        )


def finish(procedure_id: int, reason: str = "", detail: str = "") -> bool:
    """End an active procedure: done, or failed for `reason` (one word). Says whether it was."""
    return bool(_end(Procedure.objects.filter(pk=procedure_id), ACTIVE, reason, detail))


def finish_running(cluster_id: int, kind: str, reason: str = "", detail: str = "") -> bool:
    """End what of the kind is under way on the cluster."""
    rows = Procedure.objects.filter(cluster=cluster_id, kind=kind)
    return bool(_end(rows, (ProcedureState.RUNNING,), reason, detail))


def end_abandoned(cluster_id: int, kind: str, detail: str) -> bool:
    """End what a worker that is gone left under way; says whether somebody had asked for it.

    Only who alone may do it calls this (the holder of the link's lease).
    """
    rows = Procedure.objects.filter(cluster=cluster_id, kind=kind, state=ProcedureState.RUNNING)
    # One that nobody asked for begins in the moment in which it is made.
    is_asked = rows.filter(started_at__gt=F("requested_at")).exists()
    return finish_running(cluster_id, kind, WORKER_GONE, detail) and is_asked


def withdraw(cluster_id: int, kind: str, detail: str) -> bool:
    """End what of the kind waits for a worker; what is under way goes on."""
    rows = Procedure.objects.filter(cluster=cluster_id, kind=kind)
    return bool(_end(rows, (ProcedureState.WAITING,), WITHDRAWN, detail))


def waiting(kinds: Collection[str], older_than_s: float) -> list[tuple[int, int, str]]:
    """Procedures that no worker has taken up: (id, cluster's id, kind), the oldest first."""
    rows = Procedure.objects.filter(state=ProcedureState.WAITING, kind__in=list(kinds))
    rows = rows.filter(older_than("requested_at", older_than_s))
    return list(rows.order_by("pk").values_list("pk", "cluster_id", "kind"))


def expire() -> int:
    """End what nobody carries on, and forget all but the newest; returns how many were ended."""
    recent = Step.objects.filter(procedure=OuterRef("pk")).exclude(older_than("at", SILENCE_S))
    silent = Procedure.objects.filter(older_than("started_at", SILENCE_S)).exclude(Exists(recent))
    ended = _end(silent, (ProcedureState.RUNNING,), WORKER_GONE, WORKER_GONE_DETAIL)
    unasked = Procedure.objects.filter(
        older_than("requested_at", UNCLAIMED_S),
        kind=Kind.BOOTSTRAP,
        cluster__link__bootstrap_requested_at=None,
    )
    ended += _end(
        unasked,
        (ProcedureState.WAITING,),
        WITHDRAWN,
        "The request was met or taken back before a worker began: ask for it again if need be.",
    )
    _forget_old()
    return ended


def _active(cluster_id: int, kind: str) -> QuerySet[Procedure]:
    return Procedure.objects.filter(cluster=cluster_id, kind=kind, state__in=ACTIVE)


def _end(
    rows: QuerySet[Procedure], states: Collection[ProcedureState], reason: str, detail: str
) -> int:
    state = ProcedureState.FAILED if reason else ProcedureState.DONE
    # By ids: no database takes every filter in an UPDATE. The state is asked for again.
    ids = list(rows.filter(state__in=states).values_list("pk", flat=True))
    ended = Procedure.objects.filter(pk__in=ids, state__in=states).update(
        state=state, finished_at=Now(), reason=clean_text(reason, 64), detail=clean_text(detail)
    )
    if ended:
        logger.info("procedure ended", extra={"procedures": ids, "reason": reason})
    return ended


def _forget_old() -> None:
    clusters = Procedure.objects.order_by().values_list("cluster", flat=True).distinct()
    for cluster_id in clusters:
        rows = Procedure.objects.filter(cluster=cluster_id).order_by("-pk")
        newest = list(rows.values_list("pk", flat=True)[:KEPT])
        if len(newest) == KEPT:
            old = Q(pk__lt=newest[-1]) & ~Q(state__in=ACTIVE)
            Procedure.objects.filter(old, cluster=cluster_id).delete()
