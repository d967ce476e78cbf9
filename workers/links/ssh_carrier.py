"""Runs commands on a cluster over SSH: exec channels with a byte stream to each.

One carrier keeps to one address and shares its connections among its channels. Control and data
each have a carrier of their own, so that no download delays a heartbeat.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import paramiko

from . import addresses, clock, errors, remote_shell, ssh, ssh_errors
from .ssh_channel import SshChannel
from .ssh_transport import Transport

CONNECT_LIMIT_S = 120.0
"""For those who wait for another's login, whose own limits are shorter."""
CHANNEL_LIMIT_S = 20.0
START_LIMIT_S = 60.0
"""What start-up files may take, besides the command's own limit."""
SETTLE_LIMIT_S = 5.0
SETTLE_STEP_S = 0.1
"""A session that was closed counts until what ran in it has ended."""
SESSIONS = 8
"""Channels on one connection: sshd allows 10 sessions. Source: sshd_config(5), MaxSessions."""
LIMITED_S = 60.0
"""How long a refused session tells how many there may be: what was just closed counted as well."""
MOST_SPARES = 2
PLACE_PAUSE_S = 10.0
"""After which somebody who found no place may ask again."""
OPENING_SHARE = 1 / 3
"""Of the time that is left: a connection that proves dead leaves enough for another."""


@dataclass(frozen=True)
class Finished:
    """A command that has ended; `status` is None if a signal ended it."""

    status: int | None
    stdout: bytes
    stderr: str
    took_s: float


@dataclass(frozen=True)
class Wish:
    """What a channel may take: it makes no connection beyond `most_connections`, and is refused at
    once where fewer than `leaves` places would be left for others."""

    most_connections: float = math.inf
    leaves: int = 0


ANY_PLACE = Wish()


class Spare(Protocol):
    """Something open on a channel that nobody uses now."""

    def close(self) -> None: ...


@dataclass(eq=False)
class _Connection:
    transport: Transport
    channels: int = 0
    limited_to: int = SESSIONS
    limited_at: float = -math.inf
    refused_since: float = math.inf
    """No session was opened from then on, with none of ours open (clock.now())."""

    @property
    def limit(self) -> int:
        """How many channels there may be on it, as far as is known."""
        return self.limited_to if clock.now() < self.limited_at + LIMITED_S else SESSIONS

    @property
    def has_room(self) -> bool:
        return self.transport.is_active() and self.channels < self.limit


class SshCarrier:
    """Reaches one account. Close it, or `release` it: then its connections end with their channels.

    `address` keeps to a login node; without it the first that answers is kept to, and told by
    `address`. `is_control`: abort of a channel ends its whole connection, because it is judged by
    its silence. `most_connections`: whoever finds them full waits for a channel to end.
    """

    def __init__(
        self,
        login: ssh.Login,
        *,
        address: str = "",
        resolver: addresses.Resolver = addresses.system,
        gate: ssh.Gate | None = None,
        is_control: bool = True,
        start_limit_s: float = START_LIMIT_S,
        most_connections: float = math.inf,
    ) -> None:
        self.address = address
        self.logins = 0
        self._login = login
        self._resolver = resolver
        self._gate = gate
        self._is_control = is_control
        self._start_limit_s = start_limit_s
        self._most_connections = most_connections
        self._changed = threading.Condition()
        self._is_connecting = False
        self._refusal: ssh_errors.LoginError | None = None
        self._failure: BaseException | None = None
        self._tries = 0
        self._connections: list[_Connection] = []
        self._spares: list[Spare] = []
        self._is_released = False

    def __enter__(self) -> SshCarrier:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def log_in(self) -> None:
        """Have a connection now, not only with the first command. Raises LoginError."""
        self._gone(self._with_room(math.inf, ANY_PLACE))

    def open(
        self, argv: Sequence[str], ends_at: float = math.inf, wish: Wish = ANY_PLACE
    ) -> SshChannel:
        """Start `argv` and wait until the account's start-up files are through.

        `ends_at` (clock.now()) bounds all but a login, which others may be waiting for. Raises
        LoginError, CannotConnect.
        """
        command = remote_shell.command(argv)
        connection, channel = self._execute(command.text, ends_at, wish)
        opened = SshChannel(
            connection.transport,
            channel,
            is_control=self._is_control,
            on_closed=lambda: self._gone(connection),
        )
        try:
            opened.begin(command, min(self._start_limit_s, _left_s(ends_at)))
        except ssh_errors.REFUSALS as problem:
            opened.close()
            self._revoke(connection, problem)
            raise
        except BaseException:
            opened.close()
            raise
        return opened

    def run(self, argv: Sequence[str], stdin: bytes = b"", limit_s: float = 60.0) -> Finished:
        """Run `argv` to its end. Raises LoginError, CannotConnect; after `limit_s` it is killed."""
        begun_at = clock.now()
        channel = self.open(argv)
        try:
            status, stdout = channel.communicate(stdin, begun_at + limit_s)
            return Finished(status, stdout, channel.stderr_tail(), clock.now() - begun_at)
        finally:
            channel.close()

    def release(self) -> None:
        """Log out as soon as no channel is open any more."""
        with self._changed:
            self._is_released = True
            spares, self._spares = self._spares, []
        for spare in spares:
            spare.close()
        with self._changed:
            idle = [one for one in self._connections if not one.channels]
        for one in idle:
            self._drop(one)

    def close(self) -> None:
        """Log out now."""
        self.release()
        with self._changed:
            connections = list(self._connections)
        for one in connections:
            self._drop(one)

    @property
    def description(self) -> str:
        """Where the connection goes and how, for people to read."""
        with self._changed:
            ciphers = [one.transport.cipher for one in self._connections]
        return f"{self.address}, {ciphers[-1] if ciphers else 'closed'}, by {self._login.means}"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        with self._changed:
            return sum(one.transport.is_active() for one in self._connections)

    # What waits to be used again ------------------------------------------------------------------

    def keep(self, spare: Spare) -> None:
        """Hold it for who asks next, until its place or this carrier is given up."""
        with self._changed:
            is_kept = not self._is_released
            if is_kept:
                self._spares.append(spare)
                self._changed.notify_all()
            surplus = self._spares[:-MOST_SPARES]
            self._spares = self._spares[-MOST_SPARES:]
        for one in surplus if is_kept else [spare]:
            one.close()

    def take_spare(self) -> Spare | None:
        """What was kept first, if anything is: so none of them grows old unseen."""
        with self._changed:
            return self._spares.pop(0) if self._spares else None

    # Connections ----------------------------------------------------------------------------------

    def _execute(
        self, command: str, ends_at: float, wish: Wish
    ) -> tuple[_Connection, paramiko.Channel]:
        """A session that runs `command`, on a connection with room for it."""
        while True:
            connection = self._with_room(ends_at, wish)
            try:
                limit_s = min(CHANNEL_LIMIT_S, _left_s(ends_at) * OPENING_SHARE)
                channel = connection.transport.execute(command, limit_s)
                connection.refused_since = math.inf
                return connection, channel
            except paramiko.ChannelException as problem:
                self._gone(connection)
                if connection.channels:  # another connection, or a later time
                    connection.limited_to = connection.channels
                    connection.limited_at = clock.now()
                elif self._is_refused(connection):
                    self._drop(connection)
                    raise no_session(problem) from None
                else:
                    time.sleep(SETTLE_STEP_S)  # nothing tells that sshd has let go of a session
            except (paramiko.SSHException, OSError, EOFError) as problem:
                self._gone(connection)
                self._drop(connection)
                raise broken(connection.transport, problem) from problem

    def _revoke(self, connection: _Connection, problem: ssh_errors.LoginError) -> None:
        """A session said that the login is none: nobody of ours makes another like it."""
        with self._changed:
            is_first, self._refusal = self._refusal is None, problem
        self._drop(connection)
        if is_first and self._gate is not None:
            self._gate.revoked(problem)

    def _is_refused(self, connection: _Connection) -> bool:
        with self._changed:
            connection.refused_since = min(connection.refused_since, clock.now())
            return clock.now() > connection.refused_since + SETTLE_LIMIT_S

    def _with_room(self, ends_at: float, wish: Wish) -> _Connection:
        """A connection on which a place is taken for the caller; made if there is none."""
        ends_at = min(ends_at, clock.now() + CONNECT_LIMIT_S)
        while (found := self._await_room(ends_at, wish)) is not None:
            if isinstance(found, _Connection):
                return found
            found.close()
        return self._connect_alone()

    def _await_room(self, ends_at: float, wish: Wish) -> _Connection | Spare | None:
        """A place, what must be closed to have one, or None: the caller is to connect."""
        with self._changed:
            tries = self._tries
            self._forget_dead()
            if wish.leaves and self._places_left() <= wish.leaves:
                raise _no_place()
            while (found := self._take_place()) is None and not self._may_connect(wish):
                if self._spares and not self._is_connecting:
                    return self._spares.pop(0)
                if not self._changed.wait(_left_s(ends_at)):
                    raise _busy(self._is_connecting)
                if self._tries > tries and self._failure:  # one login for all who wait
                    raise self._failure
            if found is None:
                if self._refusal is not None:  # it would be refused again, and counted
                    raise self._refusal
                self._is_connecting = True
            return found

    def _connect_alone(self) -> _Connection:
        failure: BaseException | None = None
        try:
            return self._connect()
        except BaseException as problem:
            failure = problem
            raise
        finally:
            with self._changed:
                self._tries, self._failure = self._tries + 1, failure
                self._is_connecting = False
                self._changed.notify_all()

    def _connect(self) -> _Connection:
        try:
            transport, self.address = ssh.open_transport(
                self._login, self.address, resolver=self._resolver, gate=self._gate
            )
        except ssh_errors.LoginError as problem:
            if not problem.transient:
                self._refusal = problem
            raise
        made = _Connection(transport, channels=1)
        with self._changed:
            self.logins += 1
            self._connections.append(made)
        return made

    def _may_connect(self, wish: Wish) -> bool:
        # Called with the lock.
        most = min(self._most_connections, wish.most_connections)
        return not self._is_connecting and len(self._connections) < most

    def _forget_dead(self) -> None:
        # Called with the lock.
        self._connections = [one for one in self._connections if one.transport.is_active()]

    def _places_left(self) -> float:
        """For channels that are still to come, as far as is known; a spare makes room for one."""
        # Called with the lock.
        sessions = min((one.limit for one in self._connections), default=SESSIONS)
        free = sum(max(0, one.limit - one.channels) for one in self._connections)
        to_come = (self._most_connections - len(self._connections)) * max(1, sessions)
        return free + to_come + len(self._spares)

    def _take_place(self) -> _Connection | None:
        # Called with the lock.
        self._forget_dead()
        for one in self._connections:
            if one.has_room:
                one.channels += 1
                return one
        return None

    def _gone(self, connection: _Connection) -> None:
        """A channel was closed, or could not be opened."""
        with self._changed:
            connection.channels -= 1
            is_over = self._is_released and not connection.channels
            self._changed.notify_all()
        if is_over:
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        with self._changed:
            with contextlib.suppress(ValueError):
                self._connections.remove(connection)
            self._changed.notify_all()
        ssh.close(connection.transport)


def _left_s(ends_at: float) -> float:
    return max(0.05, ends_at - clock.now())


def _busy(is_connecting: bool) -> errors.CannotConnect:
    what = "Another login" if is_connecting else "What else runs on the open SSH connection"
    return errors.CannotConnect("ssh_busy", f"{what} takes too long. Try again in a moment.")


def _no_place() -> errors.CannotConnect:
    return errors.CannotConnect(
        "ssh_busy",
        "The cluster lets this account have no more sessions (MaxSessions in its sshd_config), or "
        "all are in use: try again when another transfer has ended.",
        pause_s=PLACE_PAUSE_S,
    )


def broken(transport: Transport, problem: Exception) -> errors.CannotConnect:
    """The error for a connection that broke when a session was to be opened."""
    words = transport.farewell or str(problem) or type(problem).__name__
    return errors.CannotConnect("ssh_broken", f"The SSH connection broke: {words.rstrip('.')}.")


def no_session(problem: paramiko.ChannelException) -> ssh_errors.NoMoreSessions:
    """The error for a server that opens no session."""
    return ssh_errors.NoMoreSessions(
        f"The server lets this account log in and opens no session ({problem.text}). Ask the "
        "cluster's support whether commands without a terminal are allowed (MaxSessions in its "
        "sshd_config)."
    )
