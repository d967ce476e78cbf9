"""Who holds which link: taking, renewing, fencing, sharing; all by the database's clock.

Rules:
- The epoch grows with each new holder, so (cluster, epoch) names one holder for ever.
- Each move is one conditional UPDATE; whoever changes no row has lost.
- A lease that has expired but that nobody took is still its holder's to renew.
- Whoever writes what a link told fences itself first: `locked(cluster_id, epoch)`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F, Q, QuerySet, Value
from django.db.models.functions import Greatest, Now

from .. import conf, errors
from ..models import ClusterLink, LinkState, Worker
from ..queries import WORKER_ALIVE_S, older_than
from .moves import in_future

logger = logging.getLogger(__name__)

COPY = "copy"
LARGEST_TOLD = 2**62
"""Epochs and generations above it are made up: no honest daemon has seen as many."""


@dataclass(frozen=True)
class Lease:
    """The right to hold a cluster's link, until it expires unrenewed."""

    cluster_id: int
    epoch: int
    generation: int = 0


@dataclass(frozen=True)
class Requests:
    """What was asked of the holder since it last looked."""

    bootstrap: frozenset[int]
    unwanted: frozenset[int]


def heartbeat(name: str, host: str, pid: int, is_draining: bool) -> None:
    """Say that the worker process `name` is alive."""
    facts = {"host": host, "pid": pid, "is_draining": is_draining, "heartbeat_at": Now()}
    if Worker.objects.filter(name=name).update(**facts):
        return
    try:
        with transaction.atomic():
            Worker.objects.create(name=name, host=host, pid=pid, is_draining=is_draining)
    except IntegrityError:  # it came into being in between
        Worker.objects.filter(name=name).update(**facts)


def forget_worker(name: str) -> None:
    """Forget a worker that has stopped."""
    Worker.objects.filter(name=name).delete()


def forget_silent_workers(age_s: float = 86400.0) -> int:
    """Forget workers that were not heard of for long; returns how many."""
    return Worker.objects.filter(older_than("heartbeat_at", age_s)).delete()[0]


def share() -> int:
    """How many links a live worker should hold at most."""
    wanted = ClusterLink.objects.filter(_asked_for()).count()
    silent = older_than("heartbeat_at", WORKER_ALIVE_S)
    workers = Worker.objects.filter(is_draining=False).exclude(silent).count()
    return -(-wanted // max(workers, 1))


def candidates(limit: int) -> list[int]:
    """Ids of clusters whose link is asked for, due, and held by nobody."""
    is_due = Q(not_before__lte=Now()) | Q(not_before=None) & ~Q(state=LinkState.BLOCKED)
    rows = ClusterLink.objects.filter(_free(), _asked_for(), is_due)
    return list(rows.order_by("pk").values_list("pk", flat=True)[:limit])


def take(cluster_id: int, holder: str) -> Lease | None:
    """Take the lease if it is free; a row of another instance is blocked as a copy."""
    free = ClusterLink.objects.filter(_free(), pk=cluster_id)
    instance_id = conf.get().instance_id
    with transaction.atomic():
        taken = free.filter(instance_id__in=("", instance_id)).update(
            holder=holder,
            epoch=F("epoch") + 1,
            expires_at=_expiry(),
            state=LinkState.CONNECTING,
        )
        if taken:
            return _lease(cluster_id)
        _block_copy(free.exclude(instance_id__in=("", instance_id)))
    return None


def renew_all(holder: str, cluster_ids: Collection[int]) -> set[int]:
    """Renew the holder's leases in one UPDATE; returns the clusters that are still its own."""
    rows = ClusterLink.objects.filter(holder=holder, pk__in=cluster_ids)
    rows.update(expires_at=_expiry())
    return set(rows.filter(expires_at__gt=Now()).values_list("pk", flat=True))


def release(cluster_id: int, holder: str, epoch: int) -> bool:
    """Give the lease back; says whether it was still the holder's."""
    rows = ClusterLink.objects.filter(pk=cluster_id, holder=holder, epoch=epoch)
    with transaction.atomic():
        rows.exclude(state=LinkState.BLOCKED).update(state=LinkState.DOWN)
        return bool(rows.update(holder="", expires_at=None))


def raise_epoch(
    cluster_id: int, holder: str, seen_epoch: int, seen_generation: int
) -> Lease | None:
    """Go beyond the epoch that a client has seen: the database was restored from a backup."""
    if not _is_possible(cluster_id, seen_epoch, seen_generation):
        return None
    with transaction.atomic():
        raised = ClusterLink.objects.filter(
            pk=cluster_id, holder=holder, expires_at__gt=Now()
        ).update(
            epoch=Greatest(F("epoch"), Value(seen_epoch)) + 1,
            generation=Greatest(F("generation"), Value(seen_generation)),
        )
        return _lease(cluster_id) if raised else None


def raise_generation(cluster_id: int, holder: str, epoch: int, seen: int) -> bool:
    """Go as far as the generation that a client has seen; the epoch stays its holder's."""
    if not _is_possible(cluster_id, epoch, seen):
        return False
    rows = ClusterLink.objects.filter(pk=cluster_id, holder=holder, epoch=epoch)
    return bool(rows.update(generation=Greatest(F("generation"), Value(seen))))


def next_generation(cluster_id: int, holder: str, epoch: int) -> int:
    """Issue the generation of a daemon about to be started; the request for it is met."""
    with transaction.atomic():
        issued = ClusterLink.objects.filter(pk=cluster_id, holder=holder, epoch=epoch).update(
            generation=F("generation") + 1,
            instance_id=conf.get().instance_id,
            bootstrap_requested_at=None,
        )
        if not issued:
            raise lost(cluster_id, epoch)
        return _lease(cluster_id).generation


def requested(cluster_ids: Collection[int]) -> Requests:
    """Which of the clusters are to be bootstrapped, and which are wanted no more."""
    rows = ClusterLink.objects.filter(pk__in=cluster_ids)
    asked = rows.exclude(bootstrap_requested_at=None).values_list("pk", flat=True)
    wanted = set(rows.filter(wanted=True).values_list("pk", flat=True))
    return Requests(frozenset(asked), frozenset(cluster_ids) - wanted)


def clear_bootstrap_request(cluster_id: int, epoch: int) -> None:
    """The holder has seen to the request, whatever came of it."""
    held(cluster_id, epoch).update(bootstrap_requested_at=None)


def held(cluster_id: int, epoch: int) -> QuerySet[ClusterLink]:
    """The link's row, if `epoch` still holds it."""
    return ClusterLink.objects.filter(pk=cluster_id, epoch=epoch).exclude(holder="")


def locked(cluster_id: int, epoch: int) -> ClusterLink:
    """The link's row, locked to the end of the transaction; LeaseLost if it went to another."""
    link = held(cluster_id, epoch).select_for_update().first()
    if link is None:
        raise lost(cluster_id, epoch)
    return link


def lost(cluster_id: int, epoch: int) -> errors.LeaseLost:
    """The error of a holder that holds no more."""
    return errors.LeaseLost(f"The lease {epoch} on cluster {cluster_id} went to another holder.")


def _asked_for() -> Q:
    # A bootstrap is carried out over a link, also where none is wanted for longer.
    return Q(wanted=True) | Q(bootstrap_requested_at__isnull=False)


def _free() -> Q:
    return Q(holder="") | Q(expires_at=None) | Q(expires_at__lte=Now())


def _is_possible(cluster_id: int, epoch: int, generation: int) -> bool:
    if 0 <= epoch < LARGEST_TOLD and 0 <= generation < LARGEST_TOLD:
        return True
    logger.warning(
        "impossible epoch or generation told",
        extra={"cluster": cluster_id, "epoch": epoch, "generation": generation},
    )
    return False


def _expiry() -> Any:
    return in_future(conf.get().lease_ttl_s)


def _lease(cluster_id: int) -> Lease:
    return Lease(*ClusterLink.objects.values_list("pk", "epoch", "generation").get(pk=cluster_id))


def _block_copy(rows: QuerySet[ClusterLink]) -> None:
    blocked = rows.exclude(blocked_reason=COPY).update(
        state=LinkState.BLOCKED,
        blocked_reason=COPY,
        blocked_detail=(
            "This database is a copy: another instance bootstrapped this cluster. Leave it alone,"
            " or take it over with `manage.py hpc adopt`."
        ),
        blocked_since=Now(),
        not_before=None,
    )
    if blocked:
        logger.error("link blocked: the database is a copy of another instance's")
