"""What is said to the client on a cluster to find its daemon, and to start one.

Rules:
- Only the holder of the lease starts a daemon, and only it issues a generation, after `dial` found
  none to talk to, or its greeting had no version in common.
- What a person must mend is told in one sentence and not tried again by a timer.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from controller import conf
from controller import errors as controller_errors
from controller.models import Carrier, ClusterLink, DaemonMode, HpcCluster
from controller.services import links

from ..links import bridge, carriers, errors
from . import reach
from .plans import Plan

__all__ = ["NewerGeneration", "Plan", "attach", "dial", "plan", "said", "start"]

logger = logging.getLogger(__name__)

START_LIMIT_S = 120.0
"""The client itself waits up to 30 s for an older daemon to end and 60 s for the new one."""

FOR_A_PERSON = frozenset({"settings", "store_damaged", "elsewhere", "path_refused"})
"""Codes of a failed start that time alone does not mend."""


class NewerGeneration(Exception):
    """The client has seen a higher generation than the database: it was restored from a backup."""

    def __init__(self, generation: int, detail: str) -> None:
        super().__init__(detail)
        self.generation = generation


def plan(cluster_id: int) -> Plan:
    """The plan for a cluster. Raises NotFound, CannotConnect if its secrets can't be read."""
    # Before the credentials: who changes them in between is noticed by the gate.
    link = ClusterLink.objects.filter(pk=cluster_id).first()
    cluster = HpcCluster.objects.filter(pk=cluster_id).first()
    if cluster is None or link is None:
        raise controller_errors.NotFound(f"There is no cluster {cluster_id}.")
    settings = conf.get()
    kind = reach.carrier_kind(cluster)
    return Plan(
        cluster_id=cluster_id,
        key=f"{settings.instance_id}.{cluster_id}",
        carrier=kind,
        login=reach.login_of(cluster) if kind == Carrier.SSH else None,
        login_changed_at=link.login_changed_at,
        address=link.address,
        proven_host=link.outlives_login_on,
        elsewhere_tries=link.elsewhere_tries,
        may_move=links.may_move(cluster_id),
        installation=bridge.Installation(
            cluster.client_path, cluster.python, cluster.setup_commands
        ),
        is_attached=cluster.mode == DaemonMode.ATTACHED,
        document={
            "instance_id": settings.instance_id,
            "cluster_id": cluster_id,
            "settings": {
                "HPC_SCHEDULER_CLASS": cluster.scheduler,
                "HPC_POLL_INTERVAL_S": settings.poll_interval_s,
                "HPC_POLL_INTERVAL_IDLE_S": 3 * settings.poll_interval_s,
                "HPC_SUBMIT_PARALLEL": settings.submit_parallel,
                "HPC_LOST_AFTER_S": settings.lost_after_s,
            },
            "setup_commands": cluster.setup_commands,
            "umask": cluster.umask,
            "group": cluster.group,
        },
    )


def dial(
    its_plan: Plan, carrier: carriers.Carrier
) -> tuple[carriers.Channel | None, bridge.Marker]:
    """What the client says of its daemon, and a channel to it if it answers here."""
    channel, marker = bridge.open_client(
        carrier, its_plan.installation, ("dial", its_plan.key), conf.get().connect_timeout_s
    )
    if marker.status == "connected":
        return channel, marker
    channel.close()
    return None, marker


def said(marker: bridge.Marker) -> str:
    """A marker of `dial` in words."""
    words = marker.detail or marker.status
    if marker.status != "connected" and marker.last_death:
        words += f" The last one: {marker.last_death}"
    return words


def start(its_plan: Plan, carrier: carriers.Carrier, generation: int) -> dict[str, Any]:
    """Start a detached daemon; the client's closing words.

    Raises CannotConnect, NewerGeneration.
    """
    document = {**its_plan.document, "generation": generation}
    said = bridge.start_daemon(
        carrier, its_plan.installation, its_plan.key, document, START_LIMIT_S
    )
    _refuse_failed(its_plan, said)
    return said


def attach(its_plan: Plan, carrier: carriers.Carrier, issue: Callable[[], int]) -> carriers.Channel:
    """A daemon that lives and dies with the channel. Raises CannotConnect, NewerGeneration."""
    channel, marker = bridge.open_client(
        carrier,
        its_plan.installation,
        ("serve", "--stdio", its_plan.key),
        conf.get().connect_timeout_s,
    )
    try:
        if marker.status != "ready":
            raise errors.CannotConnect(marker.code or marker.status, marker.detail)
        document = {**its_plan.document, "generation": issue()}
        channel.settimeout(START_LIMIT_S)
        channel.send(json.dumps(document).encode() + b"\n")
        _refuse_failed(its_plan, bridge.read_json_line(channel, START_LIMIT_S))
    except OSError as problem:
        channel.close()
        raise errors.CannotConnect("no_bridge", f"The start broke off: {problem}.") from problem
    except BaseException:
        channel.close()
        raise
    return channel


def _refuse_failed(its_plan: Plan, said: dict[str, Any]) -> None:
    status, code = str(said.get("status", "")), str(said.get("code") or "start_failed")
    detail = str(said.get("detail") or "The client could not start its daemon.")
    logger.info(
        "daemon.start",
        extra={"cluster_id": its_plan.cluster_id, "status": status, "detail": detail},
    )
    if status in ("started", "already"):
        return
    newest = said.get("generation")
    if code == "retired" and isinstance(newest, int):
        raise NewerGeneration(newest, detail)
    raise errors.CannotConnect(code[:64], detail, transient=code not in FOR_A_PERSON)
