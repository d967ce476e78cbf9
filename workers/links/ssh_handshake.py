"""From a TCP connection to an encrypted one with a host that is known; nobody has logged in yet."""

from __future__ import annotations

import socket
from collections.abc import Callable

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from . import clock, host_keys, ssh_errors
from .ssh_buffers import BufferedSocket
from .ssh_transport import HostKeyRefused, Transport, window_bytes

BANNER_LIMIT_S = 15.0
NEGOTIATION_LIMIT_S = 20.0
FIRST_LINES_BYTES = 16 << 10


def read_first_lines(plain: socket.socket, place: str) -> bytes:
    """What the server says up to its identification, and what came with it.

    Source: https://www.rfc-editor.org/rfc/rfc4253#section-4.2
    """
    ends_at = clock.now() + BANNER_LIMIT_S
    said = b""
    while not _is_identified(said):
        plain.settimeout(max(0.05, ends_at - clock.now()))
        try:
            data = plain.recv(4096) if clock.now() < ends_at else None
        except TimeoutError:
            data = None
        except OSError:  # a reset is as good as an end
            data = b""
        if data is None and said:
            raise _not_ssh(place, said)
        if data is None:
            raise ssh_errors.HostSilent(
                f"{place} takes the connection and says nothing for {BANNER_LIMIT_S:g} s: the "
                "host is overloaded, or this is no SSH port."
            )
        if not data and not said.startswith((b"SSH-", b"HTTP/")):
            raise ssh_errors.RefusedBeforeBanner(
                f"{place} hangs up before it says anything{_quoted(said)}: too many connections "
                "at once, or this host is banned there (fail2ban, MaxStartups, tcp wrappers). "
                "It is left alone for 10 minutes; ask the cluster's support if it stays so."
            )
        said += data
        if not data or len(said) > FIRST_LINES_BYTES:
            raise _not_ssh(place, said)
    return said


def _not_ssh(place: str, said: bytes) -> ssh_errors.NotSsh:
    return ssh_errors.NotSsh(
        f"What answers at {place} is no SSH server{_quoted(said)}. Correct the cluster's host and "
        "port."
    )


def _is_identified(said: bytes) -> bool:
    *lines, _ = said.split(b"\n")
    return any(line.startswith(b"SSH-") for line in lines)


def _quoted(said: bytes) -> str:
    text = "".join(c if c.isprintable() else " " for c in said[:200].decode("ascii", "replace"))
    return f' ("{text.strip()}")' if text.strip() else ""


def negotiate(
    plain: socket.socket,
    address: str,
    port: int,
    accepts: Callable[[str, bytes], bool],
    algorithms: tuple[str, ...],
    round_trip_s: float,
    pins: host_keys.Pins | None = None,
) -> Transport:
    """An encrypted connection to a host that is known; nobody has logged in."""
    place = f"{address} port {port}"
    first_lines = read_first_lines(plain, place)
    buffered = BufferedSocket(plain)
    buffered.unread(first_lines)
    transport = Transport(
        buffered,
        accepts=accepts,
        key_algorithms=algorithms,
        window_bytes=window_bytes(round_trip_s),
    )
    try:
        transport.start_client(timeout=NEGOTIATION_LIMIT_S)
        if not transport.initial_kex_done:
            raise TimeoutError
        return transport
    except HostKeyRefused as problem:
        raise _changed(place, f"it shows another key of the type {problem}", pins) from None
    except IncompatiblePeer as problem:
        offered = set(transport.offered_key_algorithms)
        if pins and offered and not offered.intersection(algorithms):
            raise _changed(place, "it has no key of a confirmed type", pins) from None
        raise ssh_errors.NoCommonAlgorithm(
            f"{place} and this program have no algorithm in common ({problem}). The server's SSH "
            "is too old or too narrowly configured: ask the cluster's support."
        ) from None
    except (paramiko.SSHException, OSError, EOFError) as problem:
        raise ssh_errors.HostSilent(
            f"{place} broke off before the login: {transport.farewell or _words(problem)}. It is "
            "tried again."
        ) from None
    finally:
        if not transport.initial_kex_done:
            transport.abort()


def _changed(place: str, how: str, pins: host_keys.Pins | None) -> ssh_errors.HostKeyChanged:
    return ssh_errors.HostKeyChanged(
        f"THE HOST KEY OF {place} HAS CHANGED: {how}. Someone may stand in between, or the host "
        "was installed anew. No credentials were sent. Ask the cluster's support; if the change "
        f"is meant, fetch and confirm the new key. Confirmed are: {pins}."
    )


def _words(problem: BaseException) -> str:
    text = str(problem).strip().rstrip(".")
    return text or type(problem).__name__
