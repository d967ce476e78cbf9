"""What the making of a link tells the database, on the writers."""

from __future__ import annotations

from cluster_client.protocol import messages
from controller.services import leases
from controller.services import links as link_services

from ..links import carriers, steps, upgrade
from . import greetings, reach
from .plans import Plan
from .recording import Recording


class LinkWorld:
    """The world of the holder of a lease; see world.World."""

    def __init__(
        self, plan: Plan, holder: str, epoch: int, run: reach.Run, recording: Recording
    ) -> None:
        self._plan = plan
        self._holder = holder
        self._epoch = epoch
        self._run = run
        self._recording = recording

    def carrier(self, address: str) -> carriers.Account:
        return reach.carrier(self._plan, reach.CONTROL, self._run, address)

    def issue(self) -> int:
        return self._run(
            lambda: leases.next_generation(self._plan.cluster_id, self._holder, self._epoch)
        )

    def hello(self) -> messages.Hello:
        return self._run(lambda: greetings.hello(self._plan.cluster_id, self._epoch))

    def upgraded(self, outcome: upgrade.Outcome) -> None:
        if outcome.reason:
            self._recording.reason, self._recording.note = outcome.reason, outcome.detail

    def record(self, step: steps.Step) -> None:
        self._recording.record(step)

    def begin(self) -> None:
        self._recording.begin()

    def proved(self, host: str) -> None:
        self._run(lambda: link_services.note_proved(self._plan.cluster_id, self._epoch, host))

    def attach(self, host: str) -> None:
        self._recording.note = (
            f"{host} ends what a login leaves behind: the cluster's mode was set to attached. Its "
            "daemon lives with the connection, and catches up when it is back."
        )
        self._run(lambda: link_services.become_attached(self._plan.cluster_id, self._epoch, host))

    def tried_elsewhere(self) -> None:
        self._run(lambda: link_services.note_elsewhere(self._plan.cluster_id, self._epoch))

    def moved(self) -> None:
        self._run(lambda: link_services.note_moved(self._plan.cluster_id, self._epoch))
