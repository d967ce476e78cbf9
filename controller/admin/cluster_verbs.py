"""What a person can ask to be done to a cluster, and where it fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

from .. import errors, queries
from ..models import Carrier, ClusterLink, HpcCluster, Kind, LinkState
from ..models.procedure import ACTIVE
from ..services import clusters, host_keys

User = AbstractBaseUser | AnonymousUser


class Standing:
    """How a cluster stands, as far as it decides what can be asked for."""

    def __init__(self, cluster: HpcCluster) -> None:
        self.cluster = cluster

    @cached_property
    def link(self) -> ClusterLink:
        return queries.link_of(self.cluster) or ClusterLink(cluster=self.cluster)

    @cached_property
    def active(self) -> frozenset[str]:
        """Kinds of procedures that wait or are under way."""
        rows = self.cluster.procedures.filter(state__in=ACTIVE)
        return frozenset(rows.values_list("kind", flat=True))

    @property
    def is_ssh(self) -> bool:
        return self.cluster.carrier == Carrier.SSH

    @cached_property
    def has_pins(self) -> bool:
        return bool(host_keys.pinned(self.cluster.pk))

    @property
    def unready(self) -> str:
        """What has to be done before any login; empty if nothing."""
        if not self.is_ssh:
            return ""
        if not self.cluster.key and not self.cluster.password:
            return "Enter a private key or a password below first."
        return "" if self.has_pins else "Confirm a host key first."


@dataclass(frozen=True)
class Verb:
    """`done` completes "1 cluster ..."; `unfit` says why it can't be asked for now, or ""."""

    label: str
    purpose: str
    done: str
    act: Callable[[HpcCluster, User], object]
    unfit: Callable[[Standing], str]

    def run(self, cluster: HpcCluster, user: User) -> None:
        """Ask for it. Raises Invalid where it does not fit."""
        why = self.unfit(Standing(cluster))
        if why:
            raise errors.Invalid(f"Cluster {cluster.name}: {why}")
        self.act(cluster, user)


def _fetch_host_keys(cluster: HpcCluster, user: User) -> None:
    host_keys.fetch(cluster, by=user)


def _test(cluster: HpcCluster, user: User) -> None:
    clusters.test(cluster, by=user)


def _bootstrap(cluster: HpcCluster, user: User) -> None:
    clusters.bootstrap(cluster, by=user)


def _connect(cluster: HpcCluster, user: User) -> None:
    clusters.connect(cluster)


def _disconnect(cluster: HpcCluster, user: User) -> None:
    clusters.disconnect(cluster)


def _unfit_to_fetch(at: Standing) -> str:
    if not at.is_ssh:
        return "The local carrier needs no host keys."
    return _under_way(at, Kind.HOST_KEYS)


def _unfit_to_test(at: Standing) -> str:
    return at.unready or _under_way(at, Kind.TEST)


def _unfit_to_bootstrap(at: Standing) -> str:
    return at.unready or _under_way(at, Kind.BOOTSTRAP)


def _unfit_to_connect(at: Standing) -> str:
    if at.unready:
        return at.unready
    is_tried = at.link.state in (LinkState.UP, LinkState.CONNECTING)
    return "A link is wanted already." if at.link.wanted and is_tried else ""


def _unfit_to_disconnect(at: Standing) -> str:
    is_asked_for = at.link.wanted or at.link.bootstrap_requested_at
    return "" if is_asked_for else "No link is wanted."


def _under_way(at: Standing, kind: Kind) -> str:
    return "It is under way." if kind in at.active else ""


VERBS = {
    "fetch_host_keys": Verb(
        "Fetch host keys",
        "Look which keys the hosts show; nobody logs in, nothing gets trusted.",
        "to be asked for its host keys: a worker does it.",
        _fetch_host_keys,
        _unfit_to_fetch,
    ),
    "test": Verb(
        "Test connection",
        "Log in and look; nothing is changed there.",
        "to be tested: a worker logs in and looks.",
        _test,
        _unfit_to_test,
    ),
    "bootstrap": Verb(
        "Bootstrap",
        "Put the client there if need be, and start its daemon if none answers.",
        "to be bootstrapped: a worker does it, step by step.",
        _bootstrap,
        _unfit_to_bootstrap,
    ),
    "connect": Verb(
        "Connect",
        "Hold a link from now on.",
        "to be linked: a worker does it.",
        _connect,
        _unfit_to_connect,
    ),
    "disconnect": Verb(
        "Disconnect",
        "Close the link; jobs there go on.",
        "to be left alone: the worker closes the link; jobs there go on.",
        _disconnect,
        _unfit_to_disconnect,
    ),
}
