"""Proves that a daemon stays when the login that started it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import bridge, carriers, steps

SETTLE_S = 1.5
"""What ends the processes of a login runs after it, at a pace of its own that nothing tells."""


def outlives_login(
    carrier: carriers.Account,
    log_in_again: Callable[[], carriers.Account],
    installation: bridge.Installation,
    key: str,
    record: steps.Record = steps.unrecorded,
) -> tuple[carriers.Account, bool | None]:
    """The new login, and whether the daemon of `key` is the same process there; ends the old one.

    None: the new login came to another host, as it may where one address stands for several, and
    tells nothing. Raises CannotConnect, with both logins ended.
    """
    with steps.step(record, "Log out and look for the daemon") as note:
        try:
            before = _look(carrier, installation, key)
        finally:
            carrier.close()
        again = log_in_again()
        try:
            after = _look_twice(again, installation, key)
        except BaseException:
            again.close()
            raise
        if after.host != before.host:
            note.detail = f"This login came to another host than {before.host}: it tells nothing."
            return again, None
        stays = before.daemon is not None and after == before
        note.detail = "It goes on." if stays else "This host ends what a login leaves behind."
        return again, stays


@dataclass(frozen=True)
class _Seen:
    """What answers on a host, "" if it is another than the daemon's.

    `daemon` is what no other daemon has, None if none answers.
    """

    host: str
    daemon: tuple[Any, ...] | None


def _look_twice(carrier: carriers.Carrier, installation: bridge.Installation, key: str) -> _Seen:
    seen = _look(carrier, installation, key)
    if seen.daemon is None:
        return seen
    time.sleep(SETTLE_S)
    return _look(carrier, installation, key)


def _look(carrier: carriers.Carrier, installation: bridge.Installation, key: str) -> _Seen:
    said = bridge.status(carrier, installation, key)
    host, daemon = str(said.get("host", "")), said.get("daemon")
    if said.get("status") == "elsewhere":
        return _Seen("", None)
    if said.get("status") != "connected" or not isinstance(daemon, dict):
        return _Seen(host, None)
    return _Seen(host, (daemon.get("pid"), daemon.get("generation"), daemon.get("started_at")))
