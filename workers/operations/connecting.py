"""From a plan to a channel that leads to the cluster's daemon, every step told as it ends.

Rules:
- The daemon is looked for first, which is quick. Where none answers, what is installed is started;
  a client is put there only if there is none, if it is of no use to this server, or on request
  (links/upgrade.py). One that a person has installed is never changed.
- A detached daemon must outlive the login that started it: that is proved once for each host, by
  logging out and in again. Where it does not, the cluster goes on attached.
- A daemon on another login node is talked to there (other_hosts.py). If that node can't be reached
  three times in a row, the daemon is moved by a new generation, at most once in MOVE_PAUSE_S.
"""

from __future__ import annotations

import dataclasses
import functools

from controller.models import Carrier

from ..links import bridge, carriers, client_archive, errors, provision, upgrade
from ..links import steps as link_steps
from . import bootstrap, other_hosts
from .plans import Plan
from .world import World

build_archive = functools.cache(client_archive.build)
"""Once a process: what it is installed with does not change under it."""


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
        if marker.status == other_hosts.ELSEWHERE:
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
            channel, _ = bootstrap.dial(self._plan, self._carrier)
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
        channel, marker = bootstrap.dial(self._plan, self._carrier)
        if channel is None:
            raise _vanished(marker)
        return channel

    # A daemon that is there -----------------------------------------------------------------------

    def _find(self) -> tuple[carriers.Channel | None, bridge.Marker]:
        """What answers here; the channel leads to the daemon."""
        with link_steps.step(self._world.record, "Look for the daemon") as note:
            try:
                channel, marker = bootstrap.dial(self._plan, self._carrier)
            except errors.CannotConnect as problem:
                if problem.reason != bridge.NO_CLIENT:
                    raise
                note.detail = "There is no client yet."
                return None, bridge.Marker(bridge.NO_CLIENT)
            note.detail = bootstrap.said(marker)
            return channel, marker

    def _follow(self, marker: bridge.Marker) -> tuple[carriers.Channel | None, bridge.Marker]:
        """What answers on the daemon's own host; without a channel one is to be started."""
        found = other_hosts.follow(self._plan, self._world, marker, self._carrier.address)
        if found.carrier is not None:
            self._carrier.close()
            self._carrier = found.carrier
        return found.channel, found.marker

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
        started, marker = bootstrap.dial(self._plan, self._carrier)
        if marker.status == other_hosts.ELSEWHERE:  # one address stands for several hosts
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
        f"The daemon was started and is gone: {bootstrap.said(marker)} It is tried again; its log "
        "is in the directory log of the client on the cluster.",
    )
