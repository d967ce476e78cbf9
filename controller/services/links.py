"""What the holder of a link says of it; and, by one name, leases and what the clients report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

from django.db import models, transaction
from django.db.models import Case, F, Value, When
from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from .. import conf, signals
from ..models import (
    ClusterLink,
    DaemonMode,
    HpcCluster,
    Kind,
    LinkState,
    Procedure,
    ProcedureState,
)
from ..queries import older_than
from . import leases, outbox, placement
from .leases import (
    Lease,
    Requests,
    candidates,
    clear_bootstrap_request,
    forget_silent_workers,
    forget_worker,
    heartbeat,
    next_generation,
    raise_epoch,
    release,
    renew_all,
    requested,
    share,
    take,
)
from .moves import UNBLOCKED, in_future
from .outbox import (
    ClusterEvent,
    ClusterJobState,
    cursor,
    note_asked_again,
    receive,
    reconcile,
)
from .reports import clean_text

__all__ = [
    "ClusterEvent",
    "ClusterJobState",
    "Lease",
    "Requests",
    "become_attached",
    "candidates",
    "clear_bootstrap_request",
    "cursor",
    "forget_silent_workers",
    "forget_worker",
    "heartbeat",
    "in_future",
    "is_retry",
    "may_move",
    "next_generation",
    "note_asked_again",
    "note_confirmed",
    "note_elsewhere",
    "note_moved",
    "note_proved",
    "note_reached",
    "raise_epoch",
    "receive",
    "reconcile",
    "record_blocked",
    "record_down",
    "record_up",
    "release",
    "renew_all",
    "requested",
    "share",
    "take",
]

logger = logging.getLogger(__name__)

MOVE_PAUSE_S = 600.0
"""How long a daemon stays on a host after it was moved there."""

WELCOME_COLUMNS = {
    "client_version": "client_version",
    "build_hash": "client_build",
    "host": "daemon_host",
    "pid": "daemon_pid",
    "scheduler": "scheduler",
    "scheduler_version": "scheduler_version",
    "scheduler_overruled": "scheduler_overruled",
    "capabilities": "capabilities",
    "last_death": "last_death",
    "outbox_id": "outbox_id",
}
"""Fields of the client's Welcome, and where they are kept."""


def record_up(cluster_id: int, epoch: int, welcome: Mapping[str, Any], note: str = "") -> bool:
    """The client has greeted: keep what it said of itself, and line its outbox up with ours.

    `welcome`: the fields of Welcome by name. `note`: what people are to know although it is up.
    Says whether the lease is still the epoch's.
    """
    columns = _welcome_columns(welcome)
    with transaction.atomic():
        row = leases.held(cluster_id, epoch).select_for_update().first()
        if row is None:
            return False
        if columns.get("outbox_id"):
            columns["catching_up_to"] = outbox.align(
                cluster_id,
                columns["outbox_id"],
                _bounded(welcome.get("first_seq", 1)),
                _bounded(welcome.get("last_seq", 0)),
            )
        ClusterLink.objects.filter(pk=cluster_id).update(
            **columns,
            **{**UNBLOCKED, "blocked_detail": clean_text(note)},
            state=LinkState.UP,
            failures=0,
            elsewhere_tries=0,
            instance_id=conf.get().instance_id,
            last_heard_at=Now(),
        )
        _announce(cluster_id, LinkState.UP)
        transaction.on_commit(_place_waiting, robust=True)
    return True


def record_down(cluster_id: int, epoch: int, detail: str) -> bool:
    """The link broke, or could not be made: `detail` says why."""
    with transaction.atomic():
        is_ours = leases.held(cluster_id, epoch).update(
            state=LinkState.DOWN,
            failures=F("failures") + 1,
            **{**UNBLOCKED, "blocked_detail": clean_text(detail)},
        )
        if is_ours:
            _announce(cluster_id, LinkState.DOWN)
    return bool(is_ours)


def record_blocked(
    cluster_id: int,
    epoch: int,
    reason: str,
    detail: str,
    not_before: datetime | Combinable | None = None,
) -> bool:
    """The link can't be made; `not_before` None: a person must act (connect, bootstrap, adopt)."""
    since = Case(
        When(blocked_reason=reason, blocked_since__isnull=False, then=F("blocked_since")),
        default=Now(),
    )
    with transaction.atomic():
        is_ours = leases.held(cluster_id, epoch).update(
            state=LinkState.BLOCKED,
            failures=F("failures") + 1,
            blocked_reason=Value(reason[:64], output_field=models.CharField()),
            blocked_detail=clean_text(detail),
            blocked_since=since,
            not_before=not_before,
        )
        if is_ours:
            _announce(cluster_id, LinkState.BLOCKED)
    return bool(is_ours)


def note_reached(cluster_id: int, epoch: int, address: str) -> bool:
    """The holder has reached the daemon's host at `address`; data connections go there too."""
    return bool(leases.held(cluster_id, epoch).update(address=address[:64], elsewhere_tries=0))


def note_proved(cluster_id: int, epoch: int, host: str) -> bool:
    """A daemon on `host` was seen to outlive the login that had started it."""
    return bool(leases.held(cluster_id, epoch).update(outlives_login_on=clean_text(host, 250)))


def become_attached(cluster_id: int, epoch: int, host: str) -> bool:
    """`host` ends what a login leaves behind: daemons live with their connection from now on."""
    with transaction.atomic():
        is_ours = leases.held(cluster_id, epoch).update(outlives_login_on="")
        if is_ours:
            HpcCluster.objects.filter(pk=cluster_id).update(mode=DaemonMode.ATTACHED)
    logger.warning("cluster is attached from now on", extra={"cluster": cluster_id, "host": host})
    return bool(is_ours)


def is_retry(cluster_id: int) -> bool:
    """Whether the last try to make the link failed, and its bootstrap with it."""
    last = Procedure.objects.filter(cluster=cluster_id, kind=Kind.BOOTSTRAP).first()
    has_failed = last is not None and last.state == ProcedureState.FAILED
    return has_failed and ClusterLink.objects.filter(pk=cluster_id, failures__gt=0).exists()


def note_elsewhere(cluster_id: int, epoch: int) -> bool:
    """The daemon is on another host, which could not be reached."""
    tries = F("elsewhere_tries") + 1
    return bool(leases.held(cluster_id, epoch).update(elsewhere_tries=tries))


def may_move(cluster_id: int) -> bool:
    """Whether the daemon was not moved within MOVE_PAUSE_S."""
    recent = ClusterLink.objects.filter(pk=cluster_id).exclude(moved_at=None)
    return not recent.exclude(older_than("moved_at", MOVE_PAUSE_S)).exists()


def note_moved(cluster_id: int, epoch: int) -> bool:
    """The daemon is about to be started on another host than the one where it ran."""
    logger.warning("daemon moved", extra={"cluster": cluster_id})
    return bool(leases.held(cluster_id, epoch).update(moved_at=Now(), elsewhere_tries=0))


def note_confirmed(cluster_id: int, epoch: int) -> bool:
    """A good status query of the client showed the jobs that its scheduler holds, just now."""
    return bool(leases.held(cluster_id, epoch).update(last_heard_at=Now(), last_polled_at=Now()))


def _welcome_columns(welcome: Mapping[str, Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, column in WELCOME_COLUMNS.items():
        value = welcome.get(name)
        if isinstance(value, str):
            limit = getattr(ClusterLink._meta.get_field(column), "max_length", None)
            columns[column] = clean_text(value, limit or 4000)
        elif value is not None:
            columns[column] = value
    if "daemon_pid" in columns and not 0 < columns["daemon_pid"] < 2**31:
        del columns["daemon_pid"]
    return columns


def _bounded(seq: Any) -> int:
    return min(max(int(seq), 0), leases.LARGEST_TOLD)


def _announce(cluster_id: int, state: LinkState) -> None:
    logger.info("link changed", extra={"cluster": cluster_id, "state": state.value})
    transaction.on_commit(partial(_send_signal, cluster_id, state), robust=True)


def _send_signal(cluster_id: int, state: LinkState) -> None:
    cluster = HpcCluster.objects.filter(pk=cluster_id).first()
    if cluster is not None:
        signals.link_changed.send_robust(sender=HpcCluster, cluster=cluster, state=state)


def _place_waiting() -> None:
    placement.place_waiting(is_due_only=False)
