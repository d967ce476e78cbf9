"""Looks which keys the hosts of a cluster show; nobody logs in, nothing gets trusted."""

from __future__ import annotations

from controller.models import Carrier, HpcCluster, Kind
from controller.services import host_keys

from ..links import addresses, clock, errors, ssh, ssh_errors, steps
from ..links.host_keys import HostKey
from . import procedures, reach

LIMIT_S = 180.0
"""After which no further address is asked: each has time-outs of its own."""


def fetch(cluster_id: int) -> bool:
    """Do it if it was asked for; says whether it was."""
    return procedures.carry_out(cluster_id, Kind.HOST_KEYS, _fetch)


def _fetch(cluster: HpcCluster, record: steps.Record) -> str:
    if reach.carrier_kind(cluster) != Carrier.SSH:
        return f"Cluster {cluster.name} is this machine itself: it is reached without SSH."
    with steps.step(record, "Resolve the host") as note:
        found = addresses.resolve(cluster.host_name, cluster.port)
        note.detail = f"{cluster.host_name}: {', '.join(found)}."
    offered: list[HostKey] = []
    problems: list[errors.CannotConnect] = []
    ends_at = clock.now() + LIMIT_S
    for address in found:
        if clock.now() > ends_at:
            problems.append(ssh_errors.HostSilent(f"{address}: those before took too long."))
            continue
        try:
            offered += _fetch_from(cluster, address, record)
        except ssh_errors.LoginError as problem:
            problems.append(problem)
    if not offered:
        raise problems[0]
    counts = host_keys.record(
        cluster.pk, [(key.key_type, key.fingerprint, key.address) for key in offered]
    )
    return _told(cluster, counts, problems)


def _fetch_from(cluster: HpcCluster, address: str, record: steps.Record) -> list[HostKey]:
    with steps.step(record, f"Fetch from {address}") as note:
        keys = ssh.offered_at(address, cluster.port)
        note.detail = "; ".join(str(key) for key in keys) + "."
        return keys


def _told(
    cluster: HpcCluster, counts: host_keys.Counts, problems: list[errors.CannotConnect]
) -> str:
    words = [
        f"{counts.new} new keys, {counts.known} known ones."
        if counts.new
        else f"No new key; {counts.known} are known."
    ]
    if counts.missing:
        words.append(f"{counts.missing} of the known ones were not shown.")
    if counts.new:
        words.append(
            "Compare the fingerprints with those that the cluster's support publishes, and confirm "
            "the ones that agree."
        )
    words += [f"Not asked: {problem}" for problem in problems]
    return " ".join(words)
