"""Opens SSH connections: the host verified before anything secret is sent, one attempt to log in.

Order of a login: address, TCP, the server's first line, host key, the credentials. Each step has a
limit and an error of its own (ssh_errors.py). Nothing here tries a refused login again.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import paramiko

from . import addresses, clock, host_keys, ssh_errors, ssh_handshake, ssh_login
from .host_keys import HostKey
from .ssh_transport import Transport

logger = logging.getLogger(__name__)

CONNECT_LIMIT_S = 15.0
"""For one address."""
CONNECT_ANY_LIMIT_S = 20.0
"""For all addresses of a host together, in a login."""
LONGEST_LOGIN_S = (
    CONNECT_ANY_LIMIT_S
    + ssh_handshake.BANNER_LIMIT_S
    + ssh_handshake.NEGOTIATION_LIMIT_S
    + ssh_login.METHODS_LIMIT_S
    + ssh_login.LOGIN_LIMIT_S
)
"""From a gate's answer to what it is told."""


class Gate(Protocol):
    """Counts the logins to one account, over whoever logs in to it."""

    def ask(self) -> float:
        """0 counts a login and lets it be, else the seconds until one is allowed.

        Raises a LoginError where none will be: a refusal that stands.
        """

    def told(self, problem: ssh_errors.LoginError | None) -> None:
        """What came of a login that was counted; once for each. Raises nothing."""

    def revoked(self, problem: ssh_errors.LoginError) -> None:
        """A login that was told good is refused after all, at its first session. Raises nothing."""


class OpenGate:
    """Where logins are not counted."""

    def ask(self) -> float:
        return 0.0

    def told(self, problem: ssh_errors.LoginError | None) -> None:
        return

    def revoked(self, problem: ssh_errors.LoginError) -> None:
        return


@dataclass(frozen=True)
class Login:
    """How to log in to one account. Either `key` or only `password`, as the admin's form says."""

    host: str
    username: str
    port: int = 22
    key: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    pins: frozenset[HostKey] = frozenset()

    @property
    def means(self) -> str:
        """How, for people to read."""
        if not self.key.strip():
            return "the password"
        return "the private key and its passphrase" if self.password else "the private key"


@dataclass(frozen=True)
class OfferedKeys:
    """What the hosts behind a name show; `problems` tells of addresses that could not be asked."""

    keys: tuple[HostKey, ...]
    problems: tuple[str, ...] = ()


def open_transport(
    login: Login,
    address: str = "",
    *,
    resolver: addresses.Resolver = addresses.system,
    gate: Gate | None = None,
) -> tuple[Transport, str]:
    """A logged-in connection, and the address it goes to; `address` keeps to one.

    Raises a LoginError. An address that can't be reached gives way to the next; what a host that
    was reached says is final.
    """
    # Before the network: a bad key is no attempt.
    credentials = ssh_login.Credentials(login.key, login.password)
    pins = host_keys.Pins(login.pins)
    if not pins:
        raise ssh_errors.HostKeyUnconfirmed(
            f"No host key of {login.host} is confirmed. Fetch its host keys, compare the "
            "fingerprints with those that the cluster publishes, and confirm them."
        )
    candidates = [address] if address else addresses.resolve(login.host, login.port, resolver)
    # Before the connection: one that is dropped without a word looks like an attack.
    its_gate = gate or OpenGate()
    pause_s = its_gate.ask()
    if pause_s > 0:
        raise ssh_errors.BudgetSpent(
            f"This site has used up its logins to {login.host}; the next is allowed in "
            f"{pause_s:.0f} s.",
            pause_s=pause_s,
        )
    # What the gate is told if this program breaks the login off.
    outcome: ssh_errors.LoginError | None = ssh_errors.HostSilent("The login was broken off.")
    try:
        transport, address = _log_in(login, credentials, pins, candidates)
        outcome = None
    except ssh_errors.LoginError as problem:
        outcome = problem
        raise
    finally:
        its_gate.told(outcome)
    logger.info(
        "ssh.logged_in",
        extra={"host": login.host, "address": address, "cipher": transport.cipher},
    )
    return transport, address


def _log_in(
    login: Login,
    credentials: ssh_login.Credentials,
    pins: host_keys.Pins,
    candidates: Sequence[str],
) -> tuple[Transport, str]:
    plain, address, round_trip_s = _connect_any(candidates, login.port)
    try:
        transport = ssh_handshake.negotiate(
            plain, address, login.port, pins.accept, pins.algorithms(address), round_trip_s, pins
        )
    except BaseException:
        plain.close()
        raise
    try:
        credentials.log_in(transport, login.username)
    except BaseException:
        transport.abort()
        raise
    return transport, address


def fetch_host_keys(
    host: str, port: int = 22, *, resolver: addresses.Resolver = addresses.system
) -> OfferedKeys:
    """All keys that all hosts behind a name show now; nobody logs in.

    Raises a LoginError if none could be asked.
    """
    found: list[HostKey] = []
    problems: list[ssh_errors.LoginError] = []
    for address in addresses.resolve(host, port, resolver):
        try:
            found += offered_at(address, port)
        except ssh_errors.LoginError as problem:
            problems.append(problem)
    if not found:
        raise problems[0]
    return OfferedKeys(tuple(found), tuple(str(problem) for problem in problems))


def offered_at(address: str, port: int) -> list[HostKey]:
    """The keys of one host, by a connection for each type that it offers. Raises a LoginError."""
    found: list[HostKey] = []
    left = list(host_keys.ALGORITHMS)
    while left:
        shown: list[tuple[str, bytes]] = []

        def note(key_type: str, blob: bytes, shown: list[tuple[str, bytes]] = shown) -> bool:
            shown.append((key_type, blob))
            return True

        plain, round_trip_s = addresses.connect(address, port, CONNECT_LIMIT_S)
        try:
            transport = ssh_handshake.negotiate(
                plain, address, port, note, host_keys.algorithms_of(left), round_trip_s
            )
        except BaseException:
            plain.close()
            raise
        offered = set(transport.offered_key_algorithms)
        transport.abort()
        key_type, blob = shown[0]
        found.append(HostKey(key_type, host_keys.fingerprint(blob), address))
        left = [
            kind
            for kind in left
            if kind != key_type and offered.intersection(host_keys.ALGORITHMS[kind])
        ]
    return found


def _connect_any(candidates: Sequence[str], port: int) -> tuple[socket.socket, str, float]:
    """The first address that answers; what one leaves of its share of the time is the others'."""
    ends_at = clock.now() + CONNECT_ANY_LIMIT_S
    problems = []
    for number, address in enumerate(candidates):
        share_s = max(0.05, ends_at - clock.now()) / (len(candidates) - number)
        try:
            plain, round_trip_s = addresses.connect(address, port, min(CONNECT_LIMIT_S, share_s))
        except ssh_errors.HostUnreachable as problem:
            problems.append(problem)
        else:
            return plain, address, round_trip_s
    if len(problems) == 1:
        raise problems[0]
    raise ssh_errors.HostUnreachable(" ".join(str(problem) for problem in problems))


def close(transport: Transport) -> None:
    """Log out."""
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        transport.abort()
