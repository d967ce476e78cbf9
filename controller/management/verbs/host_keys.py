"""`hpc cluster host-key NAME`: what the hosts show, and what of it is trusted."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Collection
from typing import Any

from ... import descriptions, errors, queries
from ...models import HostKey, HpcCluster
from ...services import host_keys
from . import waits
from .follow import LIMIT_S, follow
from .terminal import Console, WrongUsage


def add_options(parser: ArgumentParser) -> None:
    """The options after the cluster's name."""
    parser.add_argument("--fetch", action="store_true", help="have a worker ask the hosts first")
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument(
        "--confirm",
        nargs="+",
        metavar="SHA256:...",
        help="trust these: fingerprints as the site publishes them",
    )
    trust.add_argument("--confirm-all", action="store_true", help="trust all that are shown now")
    trust.add_argument("--withdraw", nargs="+", metavar="SHA256:...", help="trust these no more")
    parser.add_argument("--yes", action="store_true", help="don't ask before --confirm-all")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument(
        "--limit", type=waits.seconds, default=LIMIT_S, metavar="S", help="longest wait (s)"
    )


def run(console: Console, options: Namespace, cluster: HpcCluster) -> int:
    """Fetch, confirm or withdraw, as asked; then show all."""
    if options.confirm_all and not options.yes and not sys.stdin.isatty():
        raise WrongUsage(
            "There is no terminal to ask at: name the keys (--confirm SHA256:...), or add --yes."
        )
    if options.fetch:
        follow(console, console.note, host_keys.fetch(cluster), options.limit)
    if options.confirm:
        _tell(console, host_keys.confirm(cluster, _ids(cluster, options.confirm)), "confirmed")
    elif options.withdraw:
        _tell(console, host_keys.withdraw(cluster, _ids(cluster, options.withdraw)), "withdrawn")
    elif options.confirm_all:
        _confirm_all(console, cluster, is_sure=options.yes)
    found = queries.host_keys_of(cluster)
    if options.json:
        console.document([descriptions.describe_host_key(key) for key in found])
        return 0
    if not found:
        console.note(
            f"No host key of {cluster.name} is known: hpc cluster host-key {cluster.name} --fetch"
        )
    else:
        show(console, found)
    return 0


def show(console: Console, keys: Collection[HostKey]) -> None:
    """The keys as a table."""
    head = ("TYPE", "FINGERPRINT", "ADDRESS", "SHOWN", "TRUST")
    rows = [
        (
            key.key_type,
            key.fingerprint,
            key.address,
            "now" if key.is_offered else "before",
            _by(key),
        )
        for key in keys
    ]
    console.table(head, rows)


def _by(key: HostKey) -> str:
    if key.confirmed_at is None:
        return "not confirmed"
    by = f" by {key.confirmed_by}" if key.confirmed_by else ""
    return f"confirmed{by} at {key.confirmed_at:%Y-%m-%d %H:%M} UTC"


def _confirm_all(console: Console, cluster: HpcCluster, is_sure: bool) -> None:
    found = [
        key for key in queries.host_keys_of(cluster) if key.is_offered and key.confirmed_at is None
    ]
    if not found and not host_keys.pinned(cluster.pk):
        raise errors.NotFound(
            f"{cluster.name} shows no host key to confirm: hpc cluster host-key {cluster.name}"
            " --fetch --confirm-all"
        )
    if not found:
        console.note(f"All that {cluster.name} shows is confirmed already.")
        return
    if not is_sure:
        show(console, found)
        _ask(console, cluster)
    _tell(console, host_keys.confirm(cluster, [key.pk for key in found]), "confirmed")


def _ask(console: Console, cluster: HpcCluster) -> None:
    console.note(
        "Whoever owns these keys gets what is sent there. Compare them with what the site"
        f" publishes. Type yes to trust all of them as {cluster.name}:"
    )
    if sys.stdin.readline().strip() != "yes":
        raise errors.Invalid(
            f"No host key of {cluster.name} was confirmed: the answer was not yes."
        )


def _ids(cluster: HpcCluster, fingerprints: Collection[str]) -> list[int]:
    ids: list[int] = []
    for fingerprint in fingerprints:
        rows: Any = cluster.host_keys.filter(fingerprint=fingerprint)
        found = list(rows.values_list("pk", flat=True))
        if not found:
            raise errors.NotFound(
                f"Cluster {cluster.name} never showed a host key {fingerprint}: see `hpc cluster"
                f" host-key {cluster.name} --fetch`, and give fingerprints in full."
            )
        ids += found
    return ids


def _tell(console: Console, count: int, done: str) -> None:
    console.note(f"{count} host key{'s' * (count != 1)} {done}.")
