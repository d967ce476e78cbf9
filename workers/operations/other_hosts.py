"""A daemon on another login node: found there, or moved where that node can't be reached."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from controller import conf

from ..links import addresses, bridge, carriers, errors, ssh_errors, steps
from . import bootstrap
from .plans import Plan
from .world import World

logger = logging.getLogger(__name__)

ELSEWHERE = "elsewhere"
HOST_NAME = re.compile(r"[A-Za-z0-9._:-]{1,253}")
HOSTS_MOST = 3
"""Each costs a login of the budget."""
TRIES = 3
MOVED_PAUSE_S = 60.0


@dataclass(frozen=True)
class Found:
    """What answers now; without a carrier it is the host that was reached before.

    Without a channel a daemon is to be started: its own host says that it is dead, or it is moved.
    """

    marker: bridge.Marker
    channel: carriers.Channel | None = None
    carrier: carriers.Account | None = None


def follow(plan: Plan, world: World, marker: bridge.Marker, here: str) -> Found:
    """Reach the daemon that `marker`, said at the address `here`, knows on another host.

    Raises CannotConnect: not now, and not yet to be moved.
    """
    why = ""
    for address in _others(plan, marker.host, here):
        carrier = world.carrier(address)
        try:
            found = _look(plan, world, carrier, address)
        except errors.CannotConnect as problem:
            carrier.close()
            if _stands(plan, problem, address):
                raise
            logger.info("daemon.not_there", extra={"address": address, "why": str(problem)})
            why = why or str(problem)
            continue
        except BaseException:
            carrier.close()
            raise
        if found.marker.status != ELSEWHERE:
            return found
        carrier.close()
    _move(plan, world, marker.host, why)
    return Found(marker)


def _stands(plan: Plan, problem: errors.CannotConnect, address: str) -> bool:
    """Whether it says more than that the daemon's host can't be reached.

    What another host shows that the client's words led to is no change of a confirmed key.
    """
    pins = plan.login.pins if plan.login is not None else ()
    has_changed = isinstance(problem, ssh_errors.HostKeyChanged) and any(
        pin.address == address for pin in pins
    )
    return has_changed or isinstance(problem, (*ssh_errors.REFUSALS, ssh_errors.BudgetSpent))


def _look(plan: Plan, world: World, carrier: carriers.Account, address: str) -> Found:
    with steps.step(world.record, f"Look for the daemon at {address}") as note:
        carrier.log_in()
        channel, marker = bootstrap.dial(plan, carrier)
        note.detail = bootstrap.said(marker)
        return Found(marker, channel, carrier)


def _others(plan: Plan, host: str, here: str) -> list[str]:
    """The addresses of the host that the client names, then the others of the cluster's name."""
    if plan.login is None:
        return []
    found: dict[str, None] = {}
    for name in (host, plan.login.host):
        found |= dict.fromkeys(_resolved(name, plan.login.port))
    return [one for one in found if one != here][:HOSTS_MOST]


def _resolved(host: str, port: int) -> list[str]:
    if not HOST_NAME.fullmatch(host):  # it comes from the cluster
        return []
    try:
        return addresses.resolve(host, port)
    except ssh_errors.HostUnknown:
        return []


def _move(plan: Plan, world: World, host: str, why: str) -> None:
    """Returns if the daemon is to be started here; raises CannotConnect if not yet.

    `why`: what kept its own host from being reached, if that is known.
    """
    tries = plan.elsewhere_tries + 1
    if tries >= TRIES and plan.may_move:
        logger.warning("daemon.moves", extra={"from": host, "why": why})
        world.moved()
        return
    world.tried_elsewhere()
    what = f"The daemon runs on {host}, which can't be reached from here. "
    if plan.may_move:
        pause_s = 10 * conf.get().retry_min_s
        rest = f"After {TRIES} tries (this was number {tries}) it is moved."
    else:
        pause_s = MOVED_PAUSE_S
        rest = (
            "It was moved a short while ago, and is not so often: see that the login nodes behind "
            "the cluster's host can be reached, or register one of them alone."
        )
    words = f" Why: {why}" if why else ""
    raise errors.CannotConnect(ELSEWHERE, what + rest + words, pause_s=pause_s)
