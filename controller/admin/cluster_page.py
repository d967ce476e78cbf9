"""The panel "Now" on the page of a cluster: how it stands, what to do, what was done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.urls import reverse

from .. import queries
from ..lifecycle import JobStatus
from ..models import (
    ClusterLink,
    HostKey,
    HpcCluster,
    HpcJob,
    LinkState,
    LoginState,
    Procedure,
    Step,
)
from . import headlines
from .cluster_verbs import VERBS, Standing

APP = HpcJob._meta.app_label

QUICK_S = 1.5
SLOW_S = 10.0
PROCEDURES_SHOWN = 5
CHANGE = f"{APP}.change_hpccluster"
CONFIRM = f"{APP}.confirm_hostkey"

LOGIN_TONES = {
    LoginState.UNTRIED: "idle",
    LoginState.TRYING: "busy",
    LoginState.GOOD: "good",
    LoginState.REFUSED: "bad",
}


@dataclass(frozen=True)
class KeyRow:
    """One host key, wherever it was seen. `is_changed`: it took a confirmed one's place."""

    key: HostKey
    ids: str
    addresses: str
    is_offered: bool
    is_changed: bool

    @property
    def is_confirmed(self) -> bool:
        return self.key.confirmed_at is not None


@dataclass(frozen=True)
class Done:
    """A procedure as people read it; `detail` only if no step says the same."""

    procedure: Procedure
    steps: list[Step]
    detail: str


@dataclass(frozen=True)
class NextStep:
    """A step on the way from a new cluster to one that takes jobs; `verb` names its button."""

    verb: str
    label: str
    is_done: bool
    is_next: bool = False


def panel(cluster: HpcCluster, user: AbstractBaseUser | AnonymousUser) -> dict[str, Any]:
    """What the panel's template shows."""
    at = Standing(cluster)
    is_connected = queries.is_connected(cluster)
    procedures = queries.latest_procedures(cluster, PROCEDURES_SHOWN)
    is_worker_alive = queries.is_worker_alive()
    keys = key_rows(queries.host_keys_of(cluster))
    steps = _next_steps(at, keys)
    may = {name: bool(getattr(user, "has_perm", bool)(name)) for name in (CHANGE, CONFIRM)}
    return {
        "cluster": cluster,
        "link": at.link,
        "is_asked_for": bool(at.link.wanted or at.link.bootstrap_requested_at),
        "headline": headlines.of_link(
            at.link, is_connected=is_connected, is_worker_alive=is_worker_alive
        ),
        "login_tone": LOGIN_TONES[LoginState(at.link.login_state)],
        "spent": queries.logins_spent(cluster.pk) if at.is_ssh else None,
        "is_ssh": at.is_ssh,
        "keys": keys,
        "has_changed_keys": any(row.is_changed for row in keys),
        "has_unconfirmed_keys": any(row.is_offered and not row.is_confirmed for row in keys),
        "procedures": [_done(procedure) for procedure in procedures],
        "needs_worker": at.active and not is_worker_alive and headlines.WORKER_COMMAND,
        "jobs": _jobs(cluster),
        "next_steps": steps,
        "may_change": may[CHANGE],
        "may_confirm": may[CONFIRM],
        "refresh_s": _refresh_s(at, is_connected),
        **(_verbs(at, steps) if may[CHANGE] else {}),
    }


def key_rows(keys: Sequence[HostKey]) -> list[KeyRow]:
    """The keys of a cluster, one row for each, with all the addresses that it was seen at."""
    same: dict[tuple[str, str], list[HostKey]] = {}
    for key in keys:
        same.setdefault((key.key_type, key.fingerprint), []).append(key)
    replaced = {
        (key.address, key.key_type) for key in keys if key.confirmed_at and not key.is_offered
    }
    return [_row(found, replaced) for found in same.values()]


def _row(keys: list[HostKey], replaced: set[tuple[str, str]]) -> KeyRow:
    confirmed = next((key for key in keys if key.confirmed_at), None)
    shown = [key for key in keys if key.is_offered]
    return KeyRow(
        key=confirmed or keys[0],
        ids=",".join(str(key.pk) for key in keys),
        addresses=", ".join(key.address for key in shown or keys if key.address),
        is_offered=bool(shown),
        is_changed=not confirmed and any((key.address, key.key_type) in replaced for key in shown),
    )


def _done(procedure: Procedure) -> Done:
    steps = list(procedure.steps.all())
    is_said = procedure.detail in {step.detail for step in steps}
    return Done(procedure, steps, "" if is_said else procedure.detail)


def _next_steps(at: Standing, keys: Sequence[KeyRow]) -> list[NextStep]:
    """Empty once the cluster has been bootstrapped."""
    if at.link.generation:
        return []
    steps = [
        ("fetch_host_keys", "Fetch host keys", bool(keys)),
        ("confirm", "Confirm them", any(row.is_confirmed and row.is_offered for row in keys)),
        ("bootstrap", "Bootstrap", False),
    ]
    steps = steps if at.is_ssh else steps[-1:]
    first = next(number for number, (_, _, is_done) in enumerate(steps) if not is_done)
    return [NextStep(*step, is_next=number == first) for number, step in enumerate(steps)]


def _verbs(at: Standing, steps: Sequence[NextStep]) -> dict[str, Any]:
    """The buttons that fit now, and of the others why not."""
    reasons = {name: verb.unfit(at) for name, verb in VERBS.items()}
    unfit: dict[str, list[str]] = {}
    for name, why in reasons.items():
        if why:
            unfit.setdefault(why, []).append(VERBS[name].label)
    is_stuck = at.link.state == LinkState.BLOCKED
    following = {step.verb for step in steps if step.is_next and not is_stuck}
    return {
        "verbs": [
            {
                "name": name,
                "verb": VERBS[name],
                "url": url(at.cluster, "do", name),
                "is_next": name in following,
            }
            for name, why in reasons.items()
            if not why
        ],
        "unfit": [(why, ", ".join(labels)) for why, labels in unfit.items()],
    }


def _jobs(cluster: HpcCluster) -> list[tuple[str, int, str]]:
    """Open jobs as (status, count, address of the list of these)."""
    page = reverse(f"admin:{APP}_hpcjob_changelist")
    found = []
    for name, count in queries.backlog(cluster.pk).items():
        status = JobStatus[name]
        chosen = {"cluster__id__exact": cluster.pk, "job_status__exact": status.value}
        found.append((status.label, count, f"{page}?{urlencode(chosen)}"))
    return found


def _refresh_s(at: Standing, is_connected: bool) -> float | None:
    """When to look again: soon while something is under way, never where nothing is asked for."""
    link: ClusterLink = at.link
    is_asked_for = bool(link.wanted or link.bootstrap_requested_at)
    is_settled = is_connected or link.state == LinkState.BLOCKED
    is_closing = bool(link.holder) and not is_asked_for
    if at.active or is_closing or (is_asked_for and not is_settled):
        return QUICK_S
    return SLOW_S if is_asked_for else None


def url(cluster: HpcCluster, page: str, *arguments: object) -> str:
    """The address of one of the cluster's own pages."""
    return reverse(f"admin:{APP}_hpccluster_{page}", args=[cluster.pk, *arguments])
