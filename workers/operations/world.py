"""What the making of a link needs of others: a Protocol, so that it needs no database."""

from __future__ import annotations

from typing import Protocol

from cluster_client.protocol import messages

from ..links import carriers, steps, upgrade


class World(Protocol):
    """What an approach needs of others."""

    def carrier(self, address: str) -> carriers.Account: ...
    def issue(self) -> int: ...
    def hello(self) -> messages.Hello: ...
    def record(self, step: steps.Step) -> None: ...
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
