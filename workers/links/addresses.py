"""Host names, their addresses, and connections to them."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence

from . import clock, ssh_errors

ADDRESS_LIMIT = 16

Resolver = Callable[[str, int], Sequence[str]]
"""The addresses of a host name, in the order in which they are to be tried; raises OSError."""


def system(host: str, port: int) -> list[str]:
    """What the system's resolver says, each address once."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def resolve(host: str, port: int, resolver: Resolver = system) -> list[str]:
    """The addresses of a host. Raises HostUnknown."""
    try:
        found = list(resolver(host, port))[:ADDRESS_LIMIT]
    except (OSError, UnicodeError) as problem:
        words = getattr(problem, "strerror", None) or "it is no host name"
        raise ssh_errors.HostUnknown(
            f"The host name {host!r} can't be resolved ({words}). Correct the cluster's host."
        ) from problem
    if not found:
        raise ssh_errors.HostUnknown(f"The host name {host!r} has no address.")
    return found


def connect(address: str, port: int, limit_s: float) -> tuple[socket.socket, float]:
    """A TCP connection and its round trip in seconds. Raises HostUnreachable."""
    begun_at = clock.now()
    try:
        plain = socket.create_connection((address, port), timeout=limit_s)
    except TimeoutError:
        raise unreachable(
            address, port, f"no answer within {limit_s:.3g} s", hint=_FIREWALL
        ) from None
    except OSError as problem:
        hint = _NO_SSH if problem.errno == errno.ECONNREFUSED else _FIREWALL
        words = problem.strerror or str(problem)
        raise unreachable(address, port, words, hint=hint) from problem
    return plain, clock.now() - begun_at


def unreachable(address: str, port: int, why: str, hint: str) -> ssh_errors.HostUnreachable:
    """The error for an address that gives no connection."""
    return ssh_errors.HostUnreachable(f"{address} port {port} can't be reached: {why}. {hint}")


_FIREWALL = "Check the cluster's host and port, the network, and any firewall in between."
_NO_SSH = "Nothing listens there: check the port, or wait if the host is being restarted."
