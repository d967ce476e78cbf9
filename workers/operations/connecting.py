"""From a plan to a channel that leads to the cluster's daemon, every step told as it ends.

Rules:
- The daemon is looked for first, which is quick. Where none answers, what is installed is started;
  a client is put there only if there is none, if it is of no use to this server, or on request
  (links/upgrade.py). One that a person has installed is never changed.
- A detached daemon must outlive the login that started it: that is proved once for each host, by
  logging out and in again. Where it does not, the cluster goes on attached.
- A daemon on another login node is talked to there. If that node can't be reached three times in a
  row, the daemon is moved by a new generation, at most once in MOVE_PAUSE_S.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import re
from typing import Protocol

from cluster_client.protocol import messages
from controller import conf
from controller.models import Carrier

from ..links import (
    addresses,
    bridge,
    carriers,
    client_archive,
    errors,
    provision,
    ssh_errors,
    upgrade,
)
from ..links import steps as link_steps
from . import bootstrap
from .plans import Plan

logger = logging.getLogger(__name__)

CONNECTED, ELSEWHERE = "connected", "elsewhere"
HOST_NAME = re.compile(r"[A-Za-z0-9._:-]{1,253}")
OTHER_HOSTS_MOST = 3
"""Each costs a login of the budget."""
ELSEWHERE_TRIES = 3
MOVED_PAUSE_S = 60.0

build_archive = functools.cache(client_archive.build)
"""Once a process: what it is installed with does not change under it."""


class World(Protocol):
    """What an approach needs of others."""

    def carrier(self, address: str) -> carriers.Account: ...
    def issue(self) -> int: ...
    def hello(self) -> messages.Hello: ...
    def record(self, step: link_steps.Step) -> None: ...
    def upgraded(self, outcome: upgrade.Outcome) -> None: ...
    def begin(self) -> None:
        """Something is changed on the cluster from here on."""

    def proved(self, host: str) -> None:
        """The daemon outlives the login on this host."""

    def attach(self, host: str) -> None:
        """It does not: the cluster is attached from now on."""

    def tried_elsewhere(self) -> None:
        """The daemon's own host could not be reached."""

    def moved(self) -> None:
        """The daemon is to be started here although it may run elsewhere."""


class Approach:
    """One try to reach the daemon of a cluster.

    `is_asked`: someone asked to see to the client too. `is_forced`: start the daemon anew.
    """

    def __init__(self, plan: Plan, world: World, *, is_asked: bool, is_forced: bool) -> None:
        self._plan = plan
        self._world = world
        self._is_asked = is_asked
        self._is_forced = is_forced
        self._carrier: carriers.Account

    def run(self) -> tuple[carriers.Channel, str]:
        """A channel to the daemon, and the address that it goes to.

        Raises CannotConnect, NewerGeneration, and what `issue` raises.
        """
        self._carrier = self._world.carrier("")
        try:
            with link_steps.step(self._world.record, "Log in") as note:
                self._carrier.log_in()
                note.detail = f"{self._carrier.description}."
            channel = self._reach()
        except BaseException:
            self._carrier.close()
            raise
        self._carrier.release()
        return channel, self._carrier.address

    def _reach(self) -> carriers.Channel:
        if self._plan.is_attached:
            return self._attach()
        channel, marker = self._find()
        if marker.status == ELSEWHERE:
            channel, marker = self._follow(marker)
        is_fit = upgrade.skew(marker.versions) is upgrade.Skew.FITS
        is_served = channel is not None and is_fit
        if channel is not None and is_served and not (self._is_asked or self._is_forced):
            return channel
        if channel is not None:
            channel.close()
        is_changed = False
        if self._is_asked or not is_fit or marker.status == bridge.NO_CLIENT:
            is_changed = self._see_to_client()
        if is_changed or (is_served and not self._is_forced):
            channel, _ = self._dial()
            if channel is not None:
                return channel
        return self._start()

    def _see_to_client(self) -> bool:
        """Whether anything was changed: then a daemon may run that did not before."""
        if not self._is_asked:
            self._world.begin()
        outcome = upgrade.upgrade(
            self._carrier,
            self._plan.installation,
            self._plan.key,
            start=self._start_anew,
            hello=self._world.hello(),
            is_requested=self._is_asked,
            record=self._world.record,
            build=build_archive,
        )
        self._world.upgraded(outcome)
        return outcome.is_changed or bool(outcome.reason)

    def _start_anew(self) -> carriers.Channel:
        """A new daemon in any case, and a channel to it; its step is recorded by the caller."""
        if self._plan.is_attached:
            return bootstrap.attach(self._plan, self._carrier, self._world.issue)
        bootstrap.start(self._plan, self._carrier, self._world.issue())
        channel, marker = self._dial()
        if channel is None:
            raise _vanished(marker)
        return channel

    # A daemon that is there -----------------------------------------------------------------------

    def _find(self) -> tuple[carriers.Channel | None, bridge.Marker]:
        """What answers here; the channel leads to the daemon."""
        with link_steps.step(self._world.record, "Look for the daemon") as note:
            try:
                channel, marker = self._dial()
            except errors.CannotConnect as problem:
                if problem.reason != bridge.NO_CLIENT:
                    raise
                note.detail = "There is no client yet."
                return None, bridge.Marker(bridge.NO_CLIENT)
            note.detail = _said(marker)
            return channel, marker

    def _dial(
        self, carrier: carriers.Account | None = None
    ) -> tuple[carriers.Channel | None, bridge.Marker]:
        channel, marker = bootstrap.dial(self._plan, carrier or self._carrier)
        if marker.status == CONNECTED:
            return channel, marker
        channel.close()
        return None, marker

    def _follow(self, marker: bridge.Marker) -> tuple[carriers.Channel | None, bridge.Marker]:
        """The daemon is registered on another host: what answers there, or is to be started."""
        why = ""
        for address in self._other_addresses(marker.host):
            carrier = self._world.carrier(address)
            try:
                channel, found = self._look_at(carrier, address)
            except errors.CannotConnect as problem:
                carrier.close()
                if self._stands(problem, address):
                    raise
                logger.info("daemon.not_there", extra={"address": address, "why": str(problem)})
                why = why or str(problem)
                continue
            except BaseException:
                carrier.close()
                raise
            if found.status != ELSEWHERE:
                self._carrier.close()
                self._carrier = carrier
                return channel, found  # without a channel: its own host knows that it is dead
            carrier.close()
        self._move(marker, why)
        return None, marker

    def _stands(self, problem: errors.CannotConnect, address: str) -> bool:
        """Whether it says more than that the daemon's host can't be reached.

        What another host shows that the client's words led to is no change of a confirmed key.
        """
        pins = self._plan.login.pins if self._plan.login is not None else ()
        has_changed = isinstance(problem, ssh_errors.HostKeyChanged) and any(
            pin.address == address for pin in pins
        )
        return has_changed or isinstance(problem, (*ssh_errors.REFUSALS, ssh_errors.BudgetSpent))

    def _look_at(
        self, carrier: carriers.Account, address: str
    ) -> tuple[carriers.Channel | None, bridge.Marker]:
        with link_steps.step(self._world.record, f"Look for the daemon at {address}") as note:
            carrier.log_in()
            channel, found = self._dial(carrier)
            note.detail = _said(found)
            return channel, found

    def _other_addresses(self, host: str) -> list[str]:
        """That of the host that the client names, then the others behind the cluster's name."""
        login = self._plan.login
        if login is None:
            return []
        found: dict[str, None] = {}
        for name in (host, login.host):
            found |= dict.fromkeys(_resolved(name, login.port))
        return [one for one in found if one != self._carrier.address][:OTHER_HOSTS_MOST]

    def _move(self, marker: bridge.Marker, why: str) -> None:
        """Returns if the daemon is to be started here; raises CannotConnect if not yet.

        `why`: what kept its own host from being reached, if that is known.
        """
        tries = self._plan.elsewhere_tries + 1
        if tries >= ELSEWHERE_TRIES and self._plan.may_move:
            logger.warning("daemon.moves", extra={"from": marker.host, "why": why})
            self._world.moved()
            return
        self._world.tried_elsewhere()
        what = f"The daemon runs on {marker.host}, which can't be reached from here. "
        if self._plan.may_move:
            pause_s = 10 * conf.get().retry_min_s
            rest = f"After {ELSEWHERE_TRIES} tries (this was number {tries}) it is moved."
        else:
            pause_s = MOVED_PAUSE_S
            rest = (
                "It was moved a short while ago, and is not so often: see that the login nodes "
                "behind the cluster's host can be reached, or register one of them alone."
            )
        words = f" Why: {why}" if why else ""
        raise errors.CannotConnect("elsewhere", what + rest + words, pause_s=pause_s)

    # A daemon that is started ---------------------------------------------------------------------

    def _start(self) -> carriers.Channel:
        self._world.begin()
        with link_steps.step(self._world.record, "Start the daemon") as note:
            generation = self._world.issue()
            said = bootstrap.start(self._plan, self._carrier, generation)
            host = str(said.get("host", ""))
            note.detail = f"Generation {generation}, pid {said.get('pid')} on {host}."
        is_doubtful = self._plan.carrier == Carrier.SSH and host != self._plan.proven_host
        if is_doubtful and not self._may_stay(host):
            self._plan = dataclasses.replace(self._plan, is_attached=True)
            return self._attach()
        started, marker = self._dial()
        if marker.status == ELSEWHERE:  # one address stands for several hosts
            started, marker = self._follow(marker)
        if started is None:
            raise _vanished(marker)
        return started

    def _may_stay(self, host: str) -> bool:
        """Whether nothing speaks against a daemon that outlives its login on `host`."""

        def log_in_again() -> carriers.Account:
            again = self._world.carrier(self._carrier.address)
            again.log_in()
            return again

        self._carrier, stays = provision.outlives_login(
            self._carrier,
            log_in_again,
            self._plan.installation,
            self._plan.key,
            self._world.record,
        )
        if stays:
            self._world.proved(host)
        elif stays is False:
            self._world.attach(host)
        return stays is not False

    def _attach(self) -> carriers.Channel:
        if self._is_asked or self._is_forced:
            self._see_to_client()
            return self._serve()
        try:
            return self._serve()
        except errors.CannotConnect as problem:
            if problem.reason != bridge.NO_CLIENT:
                raise
        self._see_to_client()
        return self._serve()

    def _serve(self) -> carriers.Channel:
        with link_steps.step(self._world.record, "Start the daemon") as note:
            channel = bootstrap.attach(self._plan, self._carrier, self._world.issue)
            note.detail = "Attached: it lives as long as this connection."
            return channel


def _vanished(marker: bridge.Marker) -> errors.CannotConnect:
    return errors.CannotConnect(
        "daemon_vanished",
        f"The daemon was started and is gone: {_said(marker)} It is tried again; its log is in the "
        "directory log of the client on the cluster.",
    )


def _said(marker: bridge.Marker) -> str:
    words = marker.detail or marker.status
    if marker.status != CONNECTED and marker.last_death:
        words += f" The last one: {marker.last_death}"
    return words


def _resolved(host: str, port: int) -> list[str]:
    if not HOST_NAME.fullmatch(host):  # it comes from the cluster
        return []
    try:
        return addresses.resolve(host, port)
    except ssh_errors.HostUnknown:
        return []
