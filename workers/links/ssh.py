"""Opens SSH connections: the host verified before anything secret is sent, one attempt to log in.

Order of a login: address, TCP, the server's first line, host key, the credentials. Each step has a
limit and an error of its own (ssh_errors.py). Nothing here tries a refused login again.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from . import addresses, clock, host_keys, ssh_errors, ssh_keys, ssh_prompts
from .host_keys import HostKey
from .ssh_transport import BufferedSocket, HostKeyRefused, PromptRefused, Transport, window_bytes

logger = logging.getLogger(__name__)

CONNECT_LIMIT_S = 15.0
BANNER_LIMIT_S = 15.0
NEGOTIATION_LIMIT_S = 20.0
LOGIN_LIMIT_S = 40.0
FIRST_LINES_BYTES = 16 << 10

MayLogin = Callable[[], float]
"""Asked before each login: 0 counts it and lets it be, else the seconds until one is allowed."""


def without_budget() -> float:
    """Where logins are not counted."""
    return 0.0


@dataclass(frozen=True)
class Login:
    """How to log in to one account. Either `key` or only `password`, as the admin's form says."""

    host: str
    username: str
    port: int = 22
    key: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    pins: frozenset[HostKey] = frozenset()


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
    may_login: MayLogin = without_budget,
) -> tuple[Transport, str]:
    """A logged-in connection, and the address it goes to; `address` keeps to one.

    Raises a LoginError. An address that can't be reached gives way to the next; what a host that
    was reached says is final.
    """
    credentials = _Credentials(login)  # before the network: a bad key is no attempt
    pins = host_keys.Pins(login.pins)
    if not pins:
        raise ssh_errors.HostKeyUnconfirmed(
            f"No host key of {login.host} is confirmed. Fetch its host keys, compare the "
            "fingerprints with those that the cluster publishes, and confirm them."
        )
    candidates = [address] if address else addresses.resolve(login.host, login.port, resolver)
    plain, address, round_trip_s = _connect_any(candidates, login.port)
    try:
        pause_s = may_login()
        if pause_s > 0:
            raise ssh_errors.BudgetSpent(
                f"This site has used up its logins to {login.host}; the next is allowed in "
                f"{pause_s:.0f} s.",
                pause_s=pause_s,
            )
        transport = _negotiate(
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
    logger.info(
        "ssh.logged_in",
        extra={"host": login.host, "address": address, "cipher": transport.cipher},
    )
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
            found += _offered_at(address, port)
        except ssh_errors.LoginError as problem:
            problems.append(problem)
    if not found:
        raise problems[0]
    return OfferedKeys(tuple(found), tuple(str(problem) for problem in problems))


def _offered_at(address: str, port: int) -> list[HostKey]:
    """One connection for each type that the first one was offered."""
    found: list[HostKey] = []
    left = list(host_keys.ALGORITHMS)
    while left:
        shown: list[tuple[str, bytes]] = []

        def note(key_type: str, blob: bytes, shown: list[tuple[str, bytes]] = shown) -> bool:
            shown.append((key_type, blob))
            return True

        plain, round_trip_s = addresses.connect(address, port, CONNECT_LIMIT_S)
        try:
            transport = _negotiate(
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


def _connect_any(candidates: Iterable[str], port: int) -> tuple[socket.socket, str, float]:
    problems = []
    for address in candidates:
        try:
            plain, round_trip_s = addresses.connect(address, port, CONNECT_LIMIT_S)
        except ssh_errors.HostUnreachable as problem:
            problems.append(problem)
        else:
            return plain, address, round_trip_s
    if len(problems) == 1:
        raise problems[0]
    raise ssh_errors.HostUnreachable(" ".join(str(problem) for problem in problems))


# The server's first lines -------------------------------------------------------------------------


def _read_first_lines(plain: socket.socket, place: str) -> bytes:
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


# Key exchange -------------------------------------------------------------------------------------


def _negotiate(
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
    first_lines = _read_first_lines(plain, place)
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


# Credentials --------------------------------------------------------------------------------------


class _Credentials:
    """One of the three ways to log in, checked as far as that goes without a server."""

    def __init__(self, login: Login) -> None:
        self._key = ssh_keys.load(login.key, login.password) if login.key.strip() else None
        self._password = login.password
        self._has_sent = False
        if self._key is None and not login.password:
            raise ssh_errors.NoCredentials(
                "There is neither a private key nor a password: enter one of them."
            )

    def log_in(self, transport: Transport, username: str) -> None:
        """One attempt. Raises LoginRefused, SecondFactor, PasswordExpired, HostSilent."""
        transport.auth_timeout = LOGIN_LIMIT_S
        begun_at = clock.now()
        try:
            left = self._attempt(transport, username)
        except PromptRefused as problem:
            assert isinstance(problem.__cause__, ssh_errors.LoginError)  # noqa: S101
            raise problem.__cause__ from None
        except paramiko.BadAuthenticationType as problem:
            raise self._refused(username, problem.allowed_types) from None
        except (paramiko.SSHException, OSError, EOFError) as problem:
            is_late = clock.now() - begun_at >= LOGIN_LIMIT_S
            if is_late or not self._has_sent:
                raise ssh_errors.HostSilent(
                    f"The server broke off before the login: {_words(problem)}."
                ) from None
            # Whoever hangs up on credentials refuses them: so do PAM's account rules. To try again
            # by a timer could lock the account.
            words = transport.farewell or ("" if transport.is_active() else _last_words(transport))
            raise self._refused(username, (), words) from None
        finally:
            _forget(transport)
        if left:
            raise ssh_errors.SecondFactor(
                f"The server took the credentials and asks for more ({', '.join(left)}). "
                + ssh_prompts.FACTOR_WORDS
            )

    def _attempt(self, transport: Transport, username: str) -> list[str]:
        """Which methods are asked for besides, after one has succeeded."""
        offered = _methods(transport, username)
        if offered is None:
            return []
        self._has_sent = True
        if self._key is not None:
            if "publickey" not in offered:
                raise paramiko.BadAuthenticationType("", offered)
            return transport.auth_publickey(username, self._key)
        if "password" in offered:
            return self._send_password(transport, username)
        if "keyboard-interactive" in offered:
            return self._be_interviewed(transport, username)
        raise paramiko.BadAuthenticationType("", offered)

    def _be_interviewed(self, transport: Transport, username: str) -> list[str]:
        interview = ssh_prompts.Interview(self._password)

        def answer(title: str, text: str, prompts: list[tuple[str, bool]]) -> list[str]:
            try:
                return interview.answer(title, text, prompts)
            except ssh_errors.LoginError as problem:
                raise PromptRefused from problem

        return transport.auth_interactive(username, answer)

    def _send_password(self, transport: Transport, username: str) -> list[str]:
        try:
            return transport.auth_password(username, self._password, fallback=False)
        except paramiko.AuthenticationException:
            raise
        except paramiko.SSHException:
            # The message for "change your password" has the number of "answer this", which
            # paramiko does not expect here. Source: RFC 4252, section 8, and RFC 4256, section 5.
            if transport.farewell or transport.is_active():
                raise
            raise PromptRefused from ssh_errors.PasswordExpired(ssh_prompts.EXPIRED_WORDS)

    def _refused(
        self, username: str, offered: Iterable[str], farewell: str = ""
    ) -> ssh_errors.LoginRefused:
        what = "key" if self._key is not None else "password"
        names = ", ".join(offered)
        if names:
            return ssh_errors.LoginRefused(
                f"The server lets nobody log in with a {what} as {username!r}; it offers {names}. "
                "Enter credentials of that kind."
            )
        hint = (
            "Check the user name, and that the public half of this key is in "
            "~/.ssh/authorized_keys there"
            if self._key is not None
            else "Check user name and password"
        )
        said = f' ("{farewell}")' if farewell else ""
        return ssh_errors.LoginRefused(
            f"The server refused the {what} of {username!r}{said}. {hint}. "
            "It is not tried again until the credentials are changed or someone asks for it."
        )


def _methods(transport: Transport, username: str) -> list[str] | None:
    """What the server offers, by asking for nothing as ssh does; None if that was enough."""
    try:
        return transport.auth_none(username) or None
    except paramiko.BadAuthenticationType as problem:
        return list(problem.allowed_types)


def _last_words(transport: Transport) -> str:
    """What a server that hangs up has said before, as PAM does."""
    # Not get_banner(), which has nothing to say of a connection that has ended.
    banner: bytes = getattr(transport.auth_handler, "banner", None) or b""
    lines = banner.decode("utf-8", "replace").strip().splitlines() or ["it hung up"]
    return "".join(c if c.isprintable() else " " for c in lines[-1])[:200]


def _forget(transport: Transport) -> None:
    """Let nothing of the connection hold the secrets any longer."""
    handler = transport.auth_handler
    if handler is not None:
        handler.password = handler.private_key = handler.interactive_handler = None


def _words(problem: BaseException) -> str:
    text = str(problem).strip().rstrip(".")
    return text or type(problem).__name__


def close(transport: Transport) -> None:
    """Log out."""
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        transport.abort()
