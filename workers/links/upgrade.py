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
import enum
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cluster_client.protocol import messages

from . import bridge, carriers, client_archive, clock, data, errors, ssh_errors, steps, upload

logger = logging.getLogger(__name__)

GREETING_LIMIT_S = 30.0

INCOMPATIBLE = "incompatible"
FAILED = "upgrade_failed"
ANSWERS = frozenset({"stale_epoch", "wrong_instance"})
"""Refusals of a daemon that has understood the greeting: the link will see to them."""

SSH_TROUBLE = frozenset({"ssh_broken", "ssh_busy"})

Start = Callable[[], carriers.Channel]


class Skew(enum.Enum):
    """How the protocol of a client stands to this server's."""

    FITS = "fits"
    OLDER = "older"
    NEWER = "newer"


@dataclass(frozen=True)
class Outcome:
    """What became of it; `reason` is "" unless the client before runs again, as `detail` says."""

    is_changed: bool
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Client:
    """A build and the protocol versions that it speaks; "" and () where there is none."""

    build_hash: str = ""
    versions: tuple[int, ...] = ()


@dataclass(frozen=True)
class Standing:
    """What is there: the files, what a start would run, and the daemon that answers here."""

    found: upload.Found
    installed: Client
    running: Client

    @property
    def versions(self) -> tuple[int, ...]:
        """Those to be talked to, without a change."""
        return self.running.versions or self.installed.versions

    def before(self, archive: client_archive.Archive) -> str:
        """The archive to go back to from `archive`; "" if there is no other one."""
        names = [self.found.current, self.found.previous]
        if self.running.build_hash:
            names.insert(0, client_archive.name_of(self.running.build_hash))
        there = (name for name in names if name in self.found.archives and name != archive.name)
        return next(there, "")


def skew(theirs: Sequence[int], ours: Sequence[int] = messages.VERSIONS) -> Skew:
    """How a client that speaks `theirs` stands; one that does not say is taken to fit."""
    if not theirs or set(theirs) & set(ours):
        return Skew.FITS
    return Skew.NEWER if max(theirs) > max(ours) else Skew.OLDER


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
        standing = _standing(carrier, installation, key, found)
        note.detail = f"Python {found.python} ({found.executable}); {_described(standing)}."
        _refuse_unfit(installation, standing, is_requested=is_requested)
    its = _Upgrade(carrier, installation, key, start, hello, record, greeting_limit_s)
    if found.kind == upload.BY_HAND:
        return its.restart_by_hand(standing, is_requested=is_requested)
    is_kept = found.is_usable and skew(standing.versions) is Skew.FITS and not is_requested
    return Outcome(is_changed=False) if is_kept else its.replace(standing, archive)


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

    def restart_by_hand(self, standing: Standing, *, is_requested: bool) -> Outcome:
        """Start the daemon anew if a person has changed its files since it was started."""
        running, installed = standing.running, standing.installed
        is_outdated = bool(installed.build_hash) and running.build_hash != installed.build_hash
        is_unfit = skew(running.versions) is not Skew.FITS
        if not running.build_hash or not is_outdated or not (is_requested or is_unfit):
            return Outcome(is_changed=False)
        self._start_and_greet()
        return Outcome(is_changed=True)

    def replace(self, standing: Standing, archive: client_archive.Archive) -> Outcome:
        """Put the archive there, start it in place of what runs, go back if it does not answer."""
        found, running = standing.found, standing.running
        before = standing.before(archive)
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
        return self._start_or_go_back(archive, before)

    def _start_or_go_back(self, archive: client_archive.Archive, before: str) -> Outcome:
        try:
            self._start_and_greet()
        except errors.LinkError as problem:
            if not before or _is_of_the_way(problem):
                raise
            return self._go_back(archive, before, problem)
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
        self, archive: client_archive.Archive, before: str, problem: errors.LinkError
    ) -> Outcome:
        """Make the client before current again and see that it runs. Raises CannotConnect."""
        failed = f"The new client {archive.name} could not be used: {_clause(problem)}. The one"
        todo = "See the client's log on the cluster, then bootstrap again."
        logger.warning("upgrade.failed", extra={"build": archive.name, "cause": str(problem)})
        try:
            with steps.step(self._record, "Go back to the client before") as note:
                upload.use(self._carrier, self._installation, before)
                running = _status(self._carrier, self._installation, self._key)[1]
                # The start may have failed before it made the older daemon end.
                if client_archive.name_of(running.build_hash) != before:
                    self._greet(self._start())
                note.detail = f"{before} runs."
        except errors.LinkError as second:
            if _is_of_the_way(second):
                raise
            raise errors.CannotConnect(
                FAILED,
                f"{failed} before, {before}, could not be started again: {_clause(second)}. Jobs "
                f"go on, and nobody watches them. {todo}",
            ) from second
        return Outcome(
            is_changed=False,
            reason=FAILED,
            detail=f"{failed} before, {before}, runs again; no job was harmed. {todo}",
        )


def _standing(
    carrier: carriers.Carrier, installation: bridge.Installation, key: str, found: upload.Found
) -> Standing:
    if not found.is_usable:
        return Standing(found, Client(), Client())
    try:
        return Standing(found, *_status(carrier, installation, key))
    except errors.CannotConnect as problem:
        # A client that can't even say what it is: to be replaced, not to stop the one who does.
        logger.warning("upgrade.no_status", extra={"key": key, "cause": str(problem)})
        return Standing(found, Client(), Client())


def _status(
    carrier: carriers.Carrier, installation: bridge.Installation, key: str
) -> tuple[Client, Client]:
    """What is installed and what runs, as the client itself tells."""
    said = bridge.status(carrier, installation, key)
    is_running = said.get("status") == "connected"
    return _client(said.get("installed")), _client(said) if is_running else Client()


def _client(said: Any) -> Client:
    if not isinstance(said, dict):
        return Client()
    versions = said.get("versions")
    numbers = versions if isinstance(versions, list) else ()
    return Client(
        str(said.get("build_hash") or ""), tuple(v for v in numbers if isinstance(v, int))
    )


def _described(standing: Standing) -> str:
    found = standing.found
    what = {
        upload.NONE: "nothing is installed",
        upload.ARCHIVE: f"{found.current or 'no archive'} is installed",
        upload.BY_HAND: "an installation by hand is used as it stands",
    }.get(found.kind, found.kind)
    build_hash = standing.running.build_hash
    return f"{what}, a daemon of build {build_hash} runs" if build_hash else what


def _refuse_unfit(
    installation: bridge.Installation, standing: Standing, *, is_requested: bool
) -> None:
    """Raise CannotConnect where only a person can make the versions meet."""
    ours, path = list(messages.VERSIONS), installation.client_path
    if standing.found.kind == upload.BY_HAND:
        versions = standing.installed.versions or standing.running.versions
        if skew(versions) is Skew.FITS:
            return
        what_to_do = (
            "was installed by hand, so it is for you to bring it to this server's release; then "
            "bootstrap the cluster"
        )
    else:
        versions = standing.versions
        if is_requested or skew(versions) is not Skew.NEWER:
            return
        what_to_do = (
            "is newer than this server. Upgrade the server; or bootstrap the cluster, if the older "
            "client is to take over"
        )
    raise errors.CannotConnect(
        INCOMPATIBLE,
        f"The client in {path} speaks protocol {list(versions)}, this server {ours}: it "
        f"{what_to_do}.",
        transient=False,
    )


def _is_of_the_way(problem: errors.LinkError) -> bool:
    """Whether it says nothing of a client: the connection broke, or can't be made."""
    is_ssh = isinstance(problem, errors.CannotConnect) and problem.reason in SSH_TROUBLE
    return is_ssh or isinstance(problem, ssh_errors.LoginError)


def _clause(problem: Exception) -> str:
    return str(problem).rstrip(".")
