"""Proves that a daemon stays when the login that started it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
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
) -> tuple[carriers.Account, bool]:
    """The new login, and whether the daemon of `key` is the same process there; ends the old one.

    Both must go to the same host. Raises CannotConnect, with both logins ended.
    """
    with steps.step(record, "Log out and look for the daemon") as note:
        try:
            before = _identity(carrier, installation, key)
        finally:
            carrier.close()
        again = log_in_again()
        try:
            stays = before is not None and _stays(again, installation, key, before)
        except BaseException:
            again.close()
            raise
        note.detail = "It goes on." if stays else "This host ends what a login leaves behind."
        return again, stays


def _stays(
    carrier: carriers.Carrier, installation: bridge.Installation, key: str, before: tuple[Any, ...]
) -> bool:
    if before != _identity(carrier, installation, key):
        return False
    time.sleep(SETTLE_S)
    return before == _identity(carrier, installation, key)


def _identity(
    carrier: carriers.Carrier, installation: bridge.Installation, key: str
) -> tuple[Any, ...] | None:
    """What no other daemon has; None if none answers."""
    said = bridge.status(carrier, installation, key)
    daemon = said.get("daemon")
    if said.get("status") != "connected" or not isinstance(daemon, dict):
        return None
    return said.get("host"), daemon.get("pid"), daemon.get("generation"), daemon.get("started_at")
