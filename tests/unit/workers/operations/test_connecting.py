"""What becomes of a try whose daemon is registered on another login node."""

from __future__ import annotations

import json
from typing import Any

import pytest

from workers.links import bridge, errors, ssh, ssh_errors
from workers.links.host_keys import HostKey
from workers.operations import connecting
from workers.operations.plans import Plan

HERE, THERE = "127.0.0.2", "127.0.0.3"
FAR = ssh_errors.HostUnreachable("127.0.0.3 port 22 can't be reached.")


class Channel:
    """Says that the daemon is on the other node."""

    def __init__(self) -> None:
        said = {"status": "elsewhere", "host": THERE, "versions": []}
        self._said = bridge.MARKER + json.dumps(said).encode() + b"\n"

    def settimeout(self, limit_s: float) -> None: ...
    def close(self) -> None: ...
    def unread(self, data: bytes) -> None:
        self._said = data

    def recv(self, size: int) -> bytes:
        said, self._said = self._said, b""
        return said


class Carrier:
    """Goes to one node, or fails to."""

    description = "a node"

    def __init__(self, address: str, problem: Exception | None) -> None:
        self.address = address
        self.problem = problem
        self.is_open = True

    def log_in(self) -> None:
        if self.problem:
            raise self.problem

    def open(self, argv: Any) -> Channel:
        return Channel()

    def close(self) -> None:
        self.is_open = False


class World:
    """Counts what would be stored."""

    def __init__(self, problem: Exception) -> None:
        self.problem = problem
        self.carriers: list[Carrier] = []
        self.tries = 0

    def carrier(self, address: str) -> Carrier:
        made = Carrier(address or HERE, self.problem if address else None)
        self.carriers.append(made)
        return made

    def record(self, step: Any) -> None: ...

    def tried_elsewhere(self) -> None:
        self.tries += 1


def failure(world: World, pins: frozenset[HostKey] = frozenset()) -> Exception:
    """How the try ends; every login of it is given up."""
    login = ssh.Login(HERE, "ada", pins=pins)
    plan = Plan(1, "portal.1", "ssh", bridge.Installation("/hpc"), login=login)
    its_world: Any = world
    approach = connecting.Approach(plan, its_world, is_asked=False, is_forced=False)
    with pytest.raises(Exception) as caught:
        approach.run()
    assert not [one for one in world.carriers if one.is_open]
    return caught.value


def test_why_the_other_node_was_not_reached_is_told() -> None:
    world = World(FAR)
    problem = failure(world)
    assert isinstance(problem, errors.CannotConnect)
    assert (problem.reason, world.tries) == ("elsewhere", 1)
    assert str(problem).endswith(f"Why: {FAR}")


@pytest.mark.parametrize(
    "problem",
    [
        ssh_errors.BudgetSpent("Later.", pause_s=9),
        ssh_errors.LoginRefused("No."),
        ssh_errors.PasswordExpired("After the login."),
        RuntimeError("the database is away"),
    ],
)
def test_what_says_nothing_of_the_other_node_is_no_try(problem: Exception) -> None:
    world = World(problem)
    assert (failure(world), world.tries) == (problem, 0)


@pytest.mark.parametrize(
    ("pinned_at", "reason"), [(THERE, "host_key_changed"), (HERE, "elsewhere")]
)
def test_a_changed_key_of_a_known_node_is_loud(pinned_at: str, reason: str) -> None:
    pin = HostKey("ssh-ed25519", "SHA256:" + 43 * "A", pinned_at)
    problem = failure(World(ssh_errors.HostKeyChanged("HAS CHANGED")), frozenset({pin}))
    assert isinstance(problem, errors.CannotConnect)
    assert problem.reason == reason
    assert "HAS CHANGED" in str(problem)
