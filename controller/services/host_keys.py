"""The keys of a cluster's hosts: what they show, and which of them a person has confirmed.

Rules:
- A key is its type and fingerprint; confirmed at one address of the cluster, it is good at all.
- What was confirmed never changes: a host that shows another key gets another row.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from .. import errors, publish
from ..models import ClusterLink, HostKey, HpcCluster, Kind, LinkState, Procedure
from . import logins, procedures
from .moves import UNBLOCKED
from .reports import clean_text

logger = logging.getLogger(__name__)

FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
REASONS = ("host_key_unconfirmed", "host_key_changed")
"""What a link is blocked for that a confirmation may cure."""
SHOWN_AT_MOST = 200
"""Keys that one look records: more are made up."""

Offered = tuple[str, str, str]
"""Type, fingerprint, address."""


@dataclass(frozen=True)
class Counts:
    """Of the keys shown: never seen before, seen before; and seen before, but not shown now.

    The last of the addresses that were asked alone.
    """

    new: int
    known: int
    missing: int


def fetch(cluster: HpcCluster, by: Any = None) -> Procedure:
    """Have a worker look which keys the hosts show; nobody logs in, nothing gets trusted."""
    with transaction.atomic():
        procedure = procedures.request(cluster, Kind.HOST_KEYS, by)
        publish.fetch_host_keys(cluster.pk)
    return procedure


def record(cluster_id: int, offered: Iterable[Offered]) -> Counts:
    """Keep what the hosts show now. A key that is confirmed elsewhere in the cluster is so here.

    Each host that could be asked shows a key: what is kept of other addresses stays as it is.
    """
    shown = _checked(offered)
    asked = {address for _, _, address in shown}
    with transaction.atomic():
        logins.locked(cluster_id)
        rows = HostKey.objects.filter(cluster=cluster_id)
        known = {(key.key_type, key.fingerprint, key.address): key for key in rows}
        made = [_made(cluster_id, key, known.values()) for key in shown if key not in known]
        HostKey.objects.bulk_create(made)
        seen = [known[key].pk for key in shown if key in known]
        rows.filter(pk__in=seen).update(seen_at=Now(), is_offered=True)
        missing = [known[key].pk for key in known if key[2] in asked and key not in shown]
        rows.filter(pk__in=missing).update(is_offered=False)
    counts = Counts(len(made), len(seen), len(missing))
    logger.info("host keys seen", extra={"cluster": cluster_id, **vars(counts)})
    return counts


def confirm(cluster: HpcCluster, ids: Collection[int], by: Any = None) -> int:
    """Trust these keys from now on; returns how many were not trusted before.

    A link that was blocked for its host keys is tried again. Raises Invalid.
    """
    with transaction.atomic():
        logins.forgive(cluster.pk)  # the link's row is locked first, as everywhere
        keys = _chosen(cluster, ids)
        rows = _same(cluster, keys).filter(confirmed_at=None)
        confirmed = len({(key.key_type, key.fingerprint) for key in rows})
        rows.update(confirmed_at=Now(), confirmed_by=by)
        _try_again(cluster.pk)
    for key in keys:
        logger.info("host key confirmed", extra={"cluster": cluster.pk, "key": str(key)})
    return confirmed


def withdraw(cluster: HpcCluster, ids: Collection[int]) -> int:
    """Trust these keys no more, and forget those that were not trusted; returns how many.

    A connection that is open stays so; the next one is refused. Raises Invalid.
    """
    with transaction.atomic():
        logins.locked(cluster.pk)
        keys = _chosen(cluster, ids)
        trusted = [key for key in keys if key.confirmed_at is not None]
        others = [key.pk for key in keys if key.confirmed_at is None]
        _same(cluster, trusted).update(confirmed_at=None, confirmed_by=None)
        HostKey.objects.filter(pk__in=others).delete()
    for key in trusted:
        logger.warning("host key withdrawn", extra={"cluster": cluster.pk, "key": str(key)})
    return len(keys)


def pinned(cluster_id: int) -> list[HostKey]:
    """The keys that a person has confirmed: a host must show one of them."""
    return list(HostKey.objects.filter(cluster=cluster_id).exclude(confirmed_at=None))


def _checked(offered: Iterable[Offered]) -> set[Offered]:
    shown = set()
    for key_type, fingerprint, address in offered:
        if FINGERPRINT.fullmatch(fingerprint):
            shown.add((clean_text(key_type, 64), fingerprint, clean_text(address, 64)))
        else:
            logger.warning("fingerprint of no known form", extra={"address": address[:64]})
    return set(sorted(shown)[:SHOWN_AT_MOST])


def _made(cluster_id: int, offered: Offered, known: Collection[HostKey]) -> HostKey:
    key_type, fingerprint, address = offered
    confirmed = [
        key
        for key in known
        if (key.key_type, key.fingerprint) == (key_type, fingerprint) and key.confirmed_at
    ]
    return HostKey(
        cluster_id=cluster_id,
        key_type=key_type,
        fingerprint=fingerprint,
        address=address,
        confirmed_at=confirmed[0].confirmed_at if confirmed else None,
        confirmed_by_id=confirmed[0].confirmed_by_id if confirmed else None,
    )


def _chosen(cluster: HpcCluster, ids: Collection[int]) -> list[HostKey]:
    found = list(HostKey.objects.select_for_update().filter(cluster=cluster.pk, pk__in=set(ids)))
    if not ids or len(found) < len(set(ids)):
        raise errors.Invalid(
            f"Not all of these are host keys of cluster {cluster.name}: fetch its host keys anew,"
            " and choose among those shown."
        )
    return found


def _same(cluster: HpcCluster, keys: Iterable[HostKey]) -> QuerySet[HostKey]:
    """The keys' rows at all addresses."""
    same = Q(pk__in=[])
    for key in keys:
        same |= Q(key_type=key.key_type, fingerprint=key.fingerprint)
    return HostKey.objects.filter(same, cluster=cluster.pk)


def _try_again(cluster_id: int) -> None:
    parked = ClusterLink.objects.filter(
        pk=cluster_id, state=LinkState.BLOCKED, blocked_reason__in=REASONS
    )
    if parked.update(state=LinkState.DOWN, failures=0, **UNBLOCKED):
        publish.connect(cluster_id)
