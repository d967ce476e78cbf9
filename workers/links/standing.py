"""What client a cluster has: its files, what a start would run, and the daemon that runs.

`skew` decides by the versions of the protocol alone. Which of two builds is newer can't be known.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluster_client.protocol import messages

from . import bridge, carriers, client_archive, errors, upload

logger = logging.getLogger(__name__)

INCOMPATIBLE = "incompatible"
"""Reason of a CannotConnect: only a person can make the versions meet."""


class Skew(enum.Enum):
    """How the protocol of a client stands to this server's."""

    FITS = "fits"
    OLDER = "older"
    NEWER = "newer"


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

    @property
    def is_fit(self) -> bool:
        """Whether it can be talked to as it is."""
        return skew(self.versions) is Skew.FITS

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


def look(
    carrier: carriers.Carrier, installation: bridge.Installation, key: str, found: upload.Found
) -> Standing:
    """What is there, of which `found` is the files. Raises CannotConnect."""
    if not found.is_usable:
        return Standing(found, Client(), Client())
    try:
        return Standing(found, *status(carrier, installation, key))
    except errors.CannotConnect as problem:
        if problem.reason not in (bridge.NO_BRIDGE, bridge.NO_CLIENT):
            raise
        # A client that can't even say what it is: to be replaced, not to stop the one who does.
        logger.warning("upgrade.no_status", extra={"key": key, "cause": str(problem)})
        return Standing(found, Client(), Client())


def status(
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


def described(standing: Standing) -> str:
    """For a step."""
    found = standing.found
    what = {
        upload.NONE: "nothing is installed",
        upload.ARCHIVE: f"{found.current or 'no archive'} is installed",
        upload.BY_HAND: "an installation by hand is used as it stands",
    }.get(found.kind, found.kind)
    build_hash = standing.running.build_hash
    return f"{what}, a daemon of build {build_hash} runs" if build_hash else what


def refuse_unfit(
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
