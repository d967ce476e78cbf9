"""Every stored secret: which key opens it, and sealing all of them with the newest."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .. import conf, crypto, errors
from ..models import HpcCluster
from ..models.secret import SealedAs, SecretField

COLUMNS = tuple(
    field.name for field in HpcCluster._meta.concrete_fields if isinstance(field, SecretField)
)
ATTEMPTS = 10
"""How often a secret is sealed anew that others change at the same time."""

Report = Callable[[int, int], None]
"""Told how many clusters are done, and of how many."""


class Outcome(enum.Enum):
    """What became of one secret that some key opens."""

    EMPTY = enum.auto()
    CURRENT = enum.auto()
    RESEALED = enum.auto()


@dataclass(frozen=True)
class Locked:
    """A secret that no key opens."""

    cluster: str
    secret: str


@dataclass(frozen=True)
class Survey:
    """How many secrets each key opens, the newest first, and those that none opens."""

    opened: tuple[int, ...]
    locked: tuple[Locked, ...]


@dataclass(frozen=True)
class Rotation:
    """How many secrets were sealed anew, how many were so already, and those that no key opens."""

    resealed: int
    current: int
    locked: tuple[Locked, ...]


def survey() -> Survey:
    """Look at every stored secret, and change nothing."""
    opened = [0] * len(conf.get().secret_keys)
    locked = []
    for cluster in HpcCluster.objects.only("name", *COLUMNS).iterator():
        for column, token in _tokens(cluster):
            number = crypto.opener(token)
            if number is None:
                locked.append(Locked(cluster.name, column))
            else:
                opened[number] += 1
    return Survey(tuple(opened), tuple(locked))


def rotate(report: Report) -> Rotation:
    """Seal every secret with the newest key; those that already are, are passed over.

    Each is its own transaction, so that it may end anywhere and be called again. One that somebody
    changes meanwhile is looked at anew; raises Busy if that goes on and on.
    """
    ids = list(HpcCluster.objects.order_by("name").values_list("pk", flat=True))
    outcomes: list[Outcome | Locked] = []
    for done, pk in enumerate(ids):
        report(done, len(ids))
        outcomes += [_rotate(pk, column) for column in COLUMNS]
    report(len(ids), len(ids))
    return Rotation(
        outcomes.count(Outcome.RESEALED),
        outcomes.count(Outcome.CURRENT),
        tuple(outcome for outcome in outcomes if isinstance(outcome, Locked)),
    )


def _rotate(pk: int, column: str) -> Outcome | Locked:
    for _ in range(ATTEMPTS):
        cluster = HpcCluster.objects.filter(pk=pk).only("name", column).first()
        stored: crypto.Sealed | None = getattr(cluster, column, None)
        if not stored or cluster is None:
            return Outcome.EMPTY
        number = crypto.opener(stored.token)
        if number is None:
            return Locked(cluster.name, column)
        if number == 0:
            return Outcome.CURRENT
        unchanged = HpcCluster.objects.filter(
            pk=pk, **{f"{column}__{SealedAs.lookup_name}": stored}
        )
        if unchanged.update(**{column: crypto.reseal(stored.token)}):
            return Outcome.RESEALED
    raise errors.Busy(
        f"The {column} of cluster id {pk} changes all the time: see who changes it, and rotate"
        " anew."
    )


def _tokens(cluster: HpcCluster) -> Iterator[tuple[str, str]]:
    values = ((column, getattr(cluster, column)) for column in COLUMNS)
    return ((column, value.token) for column, value in values if value)
