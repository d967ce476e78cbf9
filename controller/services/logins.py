"""The gate before every login to a cluster: counted over all processes, never tried in vain twice.

Rules:
- Whoever logs in asks first, and tells once what came of it. The link's row is locked for both, so
  that askers stand in line; all times are the database's.
- Credentials that are new, or were last good more than FRESH_S ago, are tried by one process; the
  others wait for what comes of it. A try that told nothing for TRYING_S is given up: its process
  is gone.
- Credentials that were refused are not tried again by anybody until a person acts: servers lock
  accounts, and ban addresses, after a few refusals.
- An attempt that was under way when credentials were changed, or forgiven their refusal, tells
  nothing of what is there now.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from types import EllipsisType
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from .. import conf, errors, publish
from ..models import ClusterLink, LinkState, LoginAttempt, LoginState
from ..queries import Spent, logins_spent, older_than
from .moves import UNBLOCKED, in_future
from .reports import clean_text

logger = logging.getLogger(__name__)

MINUTE_S = 60.0
HOUR_S = 3600.0
TRYING_S = 120.0
"""Longer than any login lasts, and it is told of: see LONGEST_LOGIN_S of the workers."""
FRESH_S = 60.0
"""How long a good login speaks for others: a site may change a password while links are up."""
PATIENCE_S = 2.0
"""How soon to ask again while another process tries the credentials."""

GOOD = "good"
REFUSALS = ("login_refused", "second_factor", "password_expired")
"""What a link is blocked for until its credentials are good."""
SUPERSEDED = "superseded"


@dataclass(frozen=True)
class Allowed:
    """Log in once, and tell what came of it under this id."""

    attempt_id: int


@dataclass(frozen=True)
class Wait:
    """Not now: ask again in `seconds`."""

    seconds: float
    sentence: str


@dataclass(frozen=True)
class Refused:
    """Not before a person acts: the cluster refused these credentials."""

    reason: str
    detail: str


Answer = Allowed | Wait | Refused


def ask(
    cluster_id: int, purpose: str, known_change: datetime | EllipsisType | None = ...
) -> Answer:
    """May I log in to the cluster now? Raises NotFound if it is gone.

    `known_change`: the link's `login_changed_at` as it was when the credentials were loaded; if
    it is another now, they are not tried. Left out, it is not compared.
    """
    with transaction.atomic():
        link = locked(cluster_id)
        if known_change is not ... and link.login_changed_at != known_change:
            return Wait(PATIENCE_S, f"The way to log in to {link.cluster} was just changed.")
        if link.login_state == LoginState.REFUSED:
            return Refused(link.login_reason, link.login_detail)
        held_back = _pause(link) or _trial(link) or _budget(link)
        if held_back is not None:
            return held_back
        if link.login_state != LoginState.GOOD:
            _set(cluster_id, login_state=LoginState.TRYING)
        return Allowed(LoginAttempt.objects.create(cluster_id=cluster_id, purpose=purpose[:16]).pk)


def told(
    cluster_id: int,
    attempt_id: int,
    reason: str = "",
    detail: str = "",
    is_refusal: bool = False,
    pause_s: float = 0.0,
) -> None:
    """What came of an attempt: `reason` "" is a good login, else the word of the failure.

    `is_refusal`: the cluster refused the credentials. `pause_s`: nobody logs in for so long.
    """
    with transaction.atomic():
        link = ClusterLink.objects.select_for_update().filter(pk=cluster_id).first()
        attempt = LoginAttempt.objects.filter(pk=attempt_id, cluster=cluster_id, outcome="")
        outcome = clean_text(reason, 64) or GOOD
        if link is None or not attempt.update(outcome=outcome):
            logger.info("login told of too late", extra={"cluster": cluster_id, "reason": reason})
            return
        changes = _changes(link, outcome, clean_text(detail), is_refusal, pause_s)
        if changes:
            _set(cluster_id, **changes)
        if outcome == GOOD and link.blocked_reason in REFUSALS:
            _try_link(cluster_id)
    if is_refusal:
        logger.warning("login refused", extra={"cluster": cluster_id, "reason": outcome})


def revoked(cluster_id: int, attempt_id: int, reason: str, detail: str = "") -> None:
    """An attempt was told good, and its first session refused: so some servers, of old passwords.

    It tells nothing if another was good since, or if the credentials are others now.
    """
    with transaction.atomic():
        link = ClusterLink.objects.select_for_update().filter(pk=cluster_id).first()
        good = LoginAttempt.objects.filter(cluster=cluster_id, outcome=GOOD)
        is_newest = not good.filter(pk__gt=attempt_id).exists()
        if link is not None and link.login_state == LoginState.GOOD and is_newest:
            good.filter(pk=attempt_id).update(outcome="")
        told(cluster_id, attempt_id, reason, detail, is_refusal=True)


def forgive(cluster_id: int) -> None:
    """A person acted: what was refused is tried once more, and no pause is kept.

    A try that is under way goes on, and credentials that are good stay so.
    """
    with transaction.atomic():
        if locked(cluster_id).login_state == LoginState.REFUSED:
            _start_anew(cluster_id)
        else:
            _set(cluster_id, login_reason="", login_detail="", login_not_before=None)


def changed(cluster_id: int) -> None:
    """Place or credentials are others now: the next login is a first try of these."""
    with transaction.atomic():
        locked(cluster_id)
        _start_anew(cluster_id)
        _set(cluster_id, login_changed_at=Now())


def spent(cluster_id: int) -> Spent:
    """How many logins to the cluster were counted lately, and how many may be."""
    return logins_spent(cluster_id)


def forget_old() -> int:
    """Forget the attempts that count no more; returns how many."""
    return LoginAttempt.objects.filter(older_than("at", HOUR_S)).delete()[0]


def locked(cluster_id: int) -> ClusterLink:
    """The link's row, locked to the end of the transaction; NotFound if it is gone."""
    rows = ClusterLink.objects.select_for_update(of=("self",)).select_related("cluster")
    link = rows.filter(pk=cluster_id).first()
    if link is None:
        raise errors.NotFound(f"There is no cluster {cluster_id} any more.")
    return link


def _pause(link: ClusterLink) -> Wait | None:
    if link.login_not_before is None:
        return None
    seconds = (link.login_not_before - _now(link.pk)).total_seconds()
    if seconds <= 0:
        return None
    why = link.login_detail or f"{link.cluster} asked for a pause."
    return Wait(seconds, f"{why} The next login is tried in {seconds:.0f} s.")


def _trial(link: ClusterLink) -> Wait | None:
    is_known = link.login_state == LoginState.GOOD and _good_lately(link.pk)
    if is_known or not _tried_now(link.pk):
        return None
    return Wait(PATIENCE_S, f"Another process tries the login to {link.cluster} first.")


def _budget(link: ClusterLink) -> Wait | None:
    settings = conf.get()
    limits = ((settings.logins_per_minute, MINUTE_S), (settings.logins_per_hour, HOUR_S))
    seconds = max(_until_free(link.pk, count, window_s) for count, window_s in limits)
    if seconds <= 0:
        return None
    return Wait(
        seconds,
        f"The logins to {link.cluster} are used up (HPC_LOGINS_PER_MINUTE, HPC_LOGINS_PER_HOUR):"
        f" the next is allowed in {seconds:.0f} s.",
    )


def _until_free(cluster_id: int, count: int, window_s: float) -> float:
    """Seconds until fewer than `count` attempts lie within the last `window_s`."""
    rows = LoginAttempt.objects.filter(cluster=cluster_id).exclude(older_than("at", window_s))
    last = rows.order_by("-at", "-pk").annotate(now=Now()).values_list("at", "now")[count - 1 :]
    found = last.first()
    if found is None:
        return 0.0
    at, now = found
    return max((at - now).total_seconds() + window_s, 0.01)


def _changes(
    link: ClusterLink, outcome: str, detail: str, is_refusal: bool, pause_s: float
) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if link.login_state == LoginState.REFUSED:
        return changes  # it stands until a person acts
    if is_refusal:
        changes |= {"login_state": LoginState.REFUSED}
    elif outcome == GOOD:
        return {"login_state": LoginState.GOOD, "login_reason": "", "login_detail": ""}
    elif link.login_state == LoginState.TRYING and not _tried_now(link.pk):
        changes |= {"login_state": LoginState.UNTRIED}
    if pause_s > 0:
        changes |= {"login_not_before": in_future(pause_s)}
    if is_refusal or pause_s > 0:
        changes |= {"login_reason": outcome, "login_detail": detail}
    return changes


def _start_anew(cluster_id: int) -> None:
    _under_way(cluster_id).update(outcome=SUPERSEDED)
    _set(
        cluster_id,
        login_state=LoginState.UNTRIED,
        login_reason="",
        login_detail="",
        login_not_before=None,
    )


def _try_link(cluster_id: int) -> None:
    """A test showed that the credentials are good: what they were refused for is over."""
    parked = ClusterLink.objects.filter(pk=cluster_id, state=LinkState.BLOCKED)
    if parked.update(state=LinkState.DOWN, failures=0, **UNBLOCKED):
        publish.connect(cluster_id)


def _under_way(cluster_id: int) -> QuerySet[LoginAttempt]:
    return LoginAttempt.objects.filter(cluster=cluster_id, outcome="")


def _tried_now(cluster_id: int) -> bool:
    return _under_way(cluster_id).exclude(older_than("at", TRYING_S)).exists()


def _good_lately(cluster_id: int) -> bool:
    good = LoginAttempt.objects.filter(cluster=cluster_id, outcome=GOOD)
    return good.exclude(older_than("at", FRESH_S)).exists()


def _set(cluster_id: int, **columns: Any) -> None:
    ClusterLink.objects.filter(pk=cluster_id).update(**columns)


def _now(cluster_id: int) -> datetime:
    now: datetime = ClusterLink.objects.filter(pk=cluster_id).values_list(Now(), flat=True).get()
    return now
