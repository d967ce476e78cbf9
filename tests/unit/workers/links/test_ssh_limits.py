"""How long a login may last: over all addresses, and in all; and for how long few sessions."""

from __future__ import annotations

import contextlib
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from controller.services import logins
from workers.links import clock, ssh, ssh_carrier, ssh_errors

SPARE_S = 10.0
"""For the database, before a login and after it."""


def test_a_login_under_way_is_not_given_up() -> None:
    assert ssh.LONGEST_LOGIN_S + SPARE_S <= logins.TRYING_S


def test_addresses_that_are_silent_leave_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "CONNECT_ANY_LIMIT_S", 0.6)
    silent, open_one = ["127.0.0.11", "127.0.0.12"], "127.0.0.13"
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(socket.create_server((open_one, 0))).getsockname()[1]
        for address in silent:  # a full queue of connections drops what comes
            stack.enter_context(socket.create_server((address, port), backlog=0))
            stack.enter_context(socket.create_connection((address, port)))
        begun_at = clock.now()
        plain, address, _ = ssh._connect_any([*silent, open_one], port)
        plain.close()
        assert address == open_one
        with pytest.raises(ssh_errors.HostUnreachable, match="no answer") as caught:
            ssh._connect_any(silent, port)
    assert all(address in str(caught.value) for address in silent)
    assert clock.now() - begun_at < 5


def test_a_refused_session_narrows_its_connection_for_a_while() -> None:
    """Sessions that were just closed count until what ran in them has ended."""
    transport: Any = SimpleNamespace(is_active=lambda: True)
    one = ssh_carrier._Connection(transport, channels=2, limited_to=2, limited_at=clock.now())
    assert (one.limit, one.has_room) == (2, False)
    one.limited_at -= ssh_carrier.LIMITED_S
    assert (one.limit, one.has_room) == (ssh_carrier.SESSIONS, True)
