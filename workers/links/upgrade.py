"""How the client on a cluster comes to be one that fits, and how the one before comes back.

Rules:
- The client changes its version when a person asks for a bootstrap, or when the one there speaks
  only older versions of the protocol. Otherwise what is there is used as it stands: workers of
  two releases side by side don't replace each other's daemons.
- One that speaks only newer versions is replaced on request alone: this server was downgraded.
- An installation by hand is never changed. A bootstrap starts its daemon anew if its files were
  changed since; an unfit one is for a person to update.
- The new client must answer a greeting. If it does not, the one before is made current again and
  runs, and the outcome says so. Since nothing but a person's request tries that build again,
  nobody needs to remember that it failed.
- Whoever dies in between, or loses the way or the lease, leaves one of the two running and the new
  one current: that is used as it stands, and the next request goes on from there.

The one use, by the holder of the lease, before it connects (see docs/decisions/0008). `marker` is
what `dial` said, or a Marker("no_client") if that failed with this reason; `elsewhere` was seen to
before:

    is_served = marker.status == "connected" and upgrade.skew(marker.versions) is FITS
    if is_requested or not is_served:
        outcome = upgrade.upgrade(
            carrier, installation, key, start=start_anew, hello=hello,
            is_requested=is_requested, record=record,
        )
        # outcome.reason and .detail are for procedures.finish; the link comes up either way.
    # From here as ever: dial, and where nobody serves, start what is there.

`start_anew()` issues a generation, starts a daemon by it whether or not one runs, and returns a
channel to it (in attached mode the daemon's own: it is closed here, and the daemon ends with it).
It is called at most twice; the steps of a start are recorded here. `hello` is a greeting of the
lease's epoch.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass

from cluster_client.protocol import messages

from . import (
    bridge,
    carriers,
    client_archive,
    clock,
    data,
    errors,
    ssh_errors,
    standing,
    steps,
    upload,
)
from .standing import Skew, Standing, skew

__all__ = ["Outcome", "Skew", "skew", "upgrade"]

logger = logging.getLogger(__name__)

GREETING_LIMIT_S = 30.0

FAILED = "upgrade_failed"
WHAT_TO_DO = "See the client's log on the cluster, then bootstrap again."
ANSWERS = frozenset({"stale_epoch", "wrong_instance"})
"""Refusals of a daemon that has understood the greeting: the link will see to them."""

SSH_TROUBLE = frozenset({"ssh_broken", "ssh_busy"})

Start = Callable[[], carriers.Channel]


@dataclass(frozen=True)
class Outcome:
    """What became of it; `reason` is "" unless the client before runs again, as `detail` says."""

    is_changed: bool
    reason: str = ""
    detail: str = ""


def upgrade(
    carrier: carriers.Carrier,
    installation: bridge.Installation,
    key: str,
    *,
    start: Start,
    hello: messages.Hello,
    is_requested: bool,
    record: steps.Record = steps.unrecorded,
    build: Callable[[], client_archive.Archive] = client_archive.build,
    greeting_limit_s: float = GREETING_LIMIT_S,
) -> Outcome:
    """See that a client is there that fits; on request, that it is of this server's build.

    Done twice it changes nothing. A daemon is started in the place of another, or of another
    build than the last; else that is left to the caller. Raises CannotConnect, and what `start`
    raises.
    """
    archive = build()
    with steps.step(record, "Look at the client") as note:
        found = upload.look(carrier, installation, archive)
        there = standing.look(carrier, installation, key, found)
        note.detail = f"Python {found.python} ({found.executable}); {standing.described(there)}."
        standing.refuse_unfit(installation, there, is_requested=is_requested)
    its = _Upgrade(carrier, installation, key, start, hello, record, greeting_limit_s)
    if found.kind == upload.BY_HAND:
        return its.restart_by_hand(there, is_requested=is_requested)
    is_kept = found.is_usable and there.is_fit and not is_requested
    return Outcome(is_changed=False) if is_kept else its.replace(there, archive)


class _Upgrade:
    """One that is under way."""

    def __init__(
        self,
        carrier: carriers.Carrier,
        installation: bridge.Installation,
        key: str,
        start: Start,
        hello: messages.Hello,
        record: steps.Record,
        greeting_limit_s: float,
    ) -> None:
        self._carrier = carrier
        self._installation = installation
        self._key = key
        self._start = start
        # Without a cursor: the outbox is lined up by the greeting of the link itself.
        self._hello = dataclasses.replace(hello, outbox_id="", cursor=0)
        self._record = record
        self._greeting_limit_s = greeting_limit_s

    def restart_by_hand(self, there: Standing, *, is_requested: bool) -> Outcome:
        """Start the daemon anew if a person has changed its files since it was started."""
        running, installed = there.running, there.installed
        is_outdated = bool(installed.build_hash) and running.build_hash != installed.build_hash
        is_unfit = skew(running.versions) is not Skew.FITS
        if not running.build_hash or not is_outdated or not (is_requested or is_unfit):
            return Outcome(is_changed=False)
        self._start_and_greet()
        return Outcome(is_changed=True)

    def replace(self, there: Standing, archive: client_archive.Archive) -> Outcome:
        """Put the archive there, start it in place of what runs, go back if it does not answer."""
        found, running = there.found, there.running
        is_there = found.is_ready(archive)
        with steps.step(self._record, "Upload the client") as note:
            if is_there:
                note.skip("It is there.")
            else:
                kept = [client_archive.name_of(running.build_hash)] if running.build_hash else []
                upload.put(self._carrier, self._installation, archive, kept)
                note.detail = f"{archive.name}, {len(archive.data) >> 10} KiB."
        is_another_running = running.build_hash not in ("", archive.build_hash)
        if not is_another_running and (is_there or not found.is_usable):
            return Outcome(is_changed=not is_there)
        try:
            self._start_and_greet()
        except errors.LinkError as problem:
            if not there.before(archive) or _is_of_the_way(problem):
                raise
            return self._go_back(archive, there, problem)
        return Outcome(is_changed=True)

    def _start_and_greet(self) -> None:
        with steps.step(self._record, "Start the daemon"):
            channel = self._start()
        with steps.step(self._record, "Greet the daemon"):
            self._greet(channel)

    def _greet(self, channel: carriers.Channel) -> None:
        """Raises LinkError unless a daemon that speaks our protocol answers."""
        try:
            data.DataLink(channel, self._hello, clock.now() + self._greeting_limit_s)
        except errors.CannotConnect as problem:
            if problem.reason not in ANSWERS:
                raise
        finally:
            channel.close()

    def _go_back(
        self, archive: client_archive.Archive, there: Standing, problem: errors.LinkError
    ) -> Outcome:
        """Make the client before current again and see that it runs.

        Raises CannotConnect if it does not, or can't be talked to: then only a person's request
        may try the new one again.
        """
        before = there.before(archive)
        failed = f"The new client {archive.name} could not be used: {_clause(problem)}. The one"
        logger.warning("upgrade.failed", extra={"build": archive.name, "cause": str(problem)})
        try:
            with steps.step(self._record, "Go back to the client before") as note:
                self._bring_back(before, is_fit=there.is_fit)
                note.detail = f"{before} runs."
        except errors.LinkError as second:
            if _is_of_the_way(second):
                raise
            raise errors.CannotConnect(
                FAILED,
                f"{failed} before, {before}, could not be started again: {_clause(second)}. Jobs "
                f"go on, and nobody watches them. {WHAT_TO_DO}",
                transient=there.is_fit,
            ) from second
        detail = f"{failed} before, {before}, runs again; no job was harmed. {WHAT_TO_DO}"
        if not there.is_fit:
            raise errors.CannotConnect(FAILED, detail, transient=False)
        return Outcome(is_changed=False, reason=FAILED, detail=detail)

    def _bring_back(self, before: str, *, is_fit: bool) -> None:
        upload.use(self._carrier, self._installation, before)
        _, running = standing.status(self._carrier, self._installation, self._key)
        # The start may have failed before it made the older daemon end.
        if client_archive.name_of(running.build_hash) == before:
            return
        channel = self._start()
        if is_fit:
            self._greet(channel)
        else:
            channel.close()


def _is_of_the_way(problem: errors.LinkError) -> bool:
    """Whether it says nothing of a client: the connection broke, or can't be made."""
    is_ssh = isinstance(problem, errors.CannotConnect) and problem.reason in SSH_TROUBLE
    return is_ssh or isinstance(problem, ssh_errors.LoginError)


def _clause(problem: Exception) -> str:
    return str(problem).rstrip(".")
