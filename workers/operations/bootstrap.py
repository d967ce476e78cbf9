"""Reaches the daemon of a cluster, and starts one where there is none.

Rules:
- Only the holder of the lease runs `ensure_daemon`, and only it issues a generation, after `dial`
  found none to talk to, or its greeting had no version in common (`is_forced`).
- What a person must mend is told in one sentence and not tried again by a timer.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from controller import conf
from controller import errors as controller_errors
from controller.models import Carrier, DaemonMode, HpcCluster

from ..links import bridge, carriers, errors

logger = logging.getLogger(__name__)

START_LIMIT_S = 120.0
"""The client itself waits up to 30 s for an older daemon to end and 60 s for the new one."""

FOR_A_PERSON = frozenset({"settings", "store_damaged", "elsewhere", "path_refused"})
"""Codes of a failed start that time alone does not mend."""


@dataclass(frozen=True)
class Plan:
    """How to reach one cluster, read from its row."""

    cluster_id: int
    key: str
    carrier: str
    installation: bridge.Installation
    is_attached: bool = False
    document: dict[str, Any] = field(default_factory=dict)


class NewerGeneration(Exception):
    """The client has seen a higher generation than the database: it was restored from a backup."""

    def __init__(self, generation: int, detail: str) -> None:
        super().__init__(detail)
        self.generation = generation


def plan(cluster_id: int) -> Plan:
    """The plan for a cluster. Raises NotFound."""
    cluster = HpcCluster.objects.filter(pk=cluster_id).first()
    if cluster is None:
        raise controller_errors.NotFound(f"There is no cluster {cluster_id}.")
    settings = conf.get()
    return Plan(
        cluster_id=cluster_id,
        key=f"{settings.instance_id}.{cluster_id}",
        carrier=cluster.carrier,
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


def carrier_of(its_plan: Plan) -> carriers.Carrier:
    """What reaches the cluster. Raises CannotConnect where it is not allowed."""
    settings = conf.get()
    if its_plan.carrier != Carrier.LOCAL:
        raise errors.CannotConnect(
            "unknown_carrier",
            f"The carrier {its_plan.carrier!r} is not known to this worker.",
            transient=False,
        )
    if not settings.allow_local_carrier:
        raise errors.CannotConnect(
            "local_carrier_refused",
            "The local carrier runs code as the worker's own user and is refused. Set "
            "HPC_ALLOW_LOCAL_CARRIER if that is meant.",
            transient=False,
        )
    switches = {
        "HPC_ALLOW_ROOT": settings.allow_root,
        "HPC_ALLOW_FAULT_POINTS": settings.allow_fault_points,
    }
    passed_on = {name: "1" for name, is_on in switches.items() if is_on}
    if settings.fault_point:
        passed_on["HPC_FAULT_POINT"] = settings.fault_point
    return carriers.LocalCarrier(passed_on)


def ensure_daemon(
    its_plan: Plan, carrier: carriers.Carrier, issue: Callable[[], int], *, is_forced: bool = False
) -> carriers.Channel:
    """A channel to the daemon; `issue` gives the generation of one that must be started.

    Raises CannotConnect, NewerGeneration, and what `issue` raises.
    """
    if its_plan.is_attached:
        return _attach(its_plan, carrier, issue)
    if not is_forced:
        channel, marker = _dial(its_plan, carrier)
        if marker.status == "connected":
            return channel
        channel.close()
        _refuse_elsewhere(marker)
        logger.info(
            "daemon.missing",
            extra={"cluster_id": its_plan.cluster_id, "status": marker.status},
        )
    _start(its_plan, carrier, issue())
    channel, marker = _dial(its_plan, carrier)
    if marker.status == "connected":
        return channel
    channel.close()
    raise errors.CannotConnect(
        "daemon_vanished",
        "The daemon was started and could not be reached from a new login "
        f"({marker.detail or marker.status}). If the site ends what a login leaves behind, set the "
        "cluster's mode to attached.",
    )


def _dial(its_plan: Plan, carrier: carriers.Carrier) -> tuple[carriers.Channel, bridge.Marker]:
    return bridge.open_client(
        carrier, its_plan.installation, ("dial", its_plan.key), conf.get().connect_timeout_s
    )


def _start(its_plan: Plan, carrier: carriers.Carrier, generation: int) -> None:
    document = {**its_plan.document, "generation": generation}
    said = bridge.start_daemon(
        carrier, its_plan.installation, its_plan.key, document, START_LIMIT_S
    )
    _refuse_failed(its_plan, said)


def _attach(
    its_plan: Plan, carrier: carriers.Carrier, issue: Callable[[], int]
) -> carriers.Channel:
    """A daemon that lives and dies with the channel."""
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


def _refuse_elsewhere(marker: bridge.Marker) -> None:
    if marker.status == "elsewhere":
        raise errors.CannotConnect(
            "elsewhere",
            f"The daemon runs on another host, {marker.host}. Register that host, or stop the "
            "daemon there with `client.py stop`.",
        )


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
