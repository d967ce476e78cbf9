"""Puts the client on a cluster, or uses the one that a person has installed there.

Works over any carrier: a program on the cluster (remote/installer.py) does what must be atomic.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import bridge, carriers, errors
from .client_archive import Archive

REMOTE = Path(__file__).with_name("remote")
CHUNK_BYTES = 1 << 20
LOOK_LIMIT_S = 30.0
PUT_LIMIT_S = 300.0
DISK_PAUSE_S = 600.0
FULL = frozenset({"ENOSPC", "EDQUOT"})
REFUSED = frozenset(
    (
        *("EACCES", "EPERM", "EROFS", "ENOENT", "EEXIST"),
        *("EISDIR", "ENOTDIR", "ENAMETOOLONG", "ELOOP"),
    )
)

NONE, ARCHIVE, BY_HAND = "none", "archive", "by_hand"


@dataclass(frozen=True)
class Found:
    """What is in the client's directory: nothing, our archive, or an installation by hand."""

    kind: str
    current: str
    is_there: bool
    python: str
    executable: str
    previous: str = ""
    archives: tuple[str, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Whether a client is there that can be started, be it ours or not."""
        return self.kind == BY_HAND or (self.kind == ARCHIVE and self.current in self.archives)

    def is_ready(self, archive: Archive) -> bool:
        """Whether nothing is to be put there."""
        return self.kind == BY_HAND or (
            self.kind == ARCHIVE and self.is_there and self.current == archive.name
        )


def look(carrier: carriers.Carrier, installation: bridge.Installation, archive: Archive) -> Found:
    """What is there now. Raises CannotConnect."""
    words = (installation.client_path.rstrip("/"), archive.name, archive.sha256)
    said = _ask(carrier, installation, ("look", *words), b"", LOOK_LIMIT_S)
    return Found(
        kind=str(said.get("kind", "")),
        current=str(said.get("current", "")),
        is_there=said.get("is_there") is True,
        python=".".join(map(str, said.get("python") or ())),
        executable=str(said.get("executable", "")),
        previous=str(said.get("previous", "")),
        archives=tuple(map(str, said.get("archives") or ())),
    )


def stub() -> str:
    """The text of client.py, which runs the archive that is current."""
    return (REMOTE / "client_stub.py").read_text()


def put(
    carrier: carriers.Carrier,
    installation: bridge.Installation,
    archive: Archive,
    kept: Sequence[str] = (),
) -> None:
    """Put the archive there and make it the current client. Raises CannotConnect.

    Never over an installation by hand: `look` first. The one that was current stays, and so do
    those named by `kept` and those that daemons run from.
    """
    words = (installation.client_path.rstrip("/"), archive.name, archive.sha256, stub(), *kept)
    _ask(carrier, installation, ("put", *words), archive.data, PUT_LIMIT_S)


def use(carrier: carriers.Carrier, installation: bridge.Installation, name: str) -> None:
    """Make an archive current that is there still; the other one stays. Raises CannotConnect."""
    _ask(
        carrier,
        installation,
        ("use", installation.client_path.rstrip("/"), name),
        b"",
        LOOK_LIMIT_S,
    )


def _ask(
    carrier: carriers.Carrier,
    installation: bridge.Installation,
    arguments: tuple[str, ...],
    data: bytes,
    limit_s: float,
) -> dict[str, Any]:
    program = (REMOTE / "installer.py").read_text()
    channel = carrier.open(installation.program(program, *arguments))
    try:
        channel.settimeout(limit_s)
        # A program that fails early reads no further: its answer tells why.
        with contextlib.suppress(OSError):
            for at in range(0, len(data), CHUNK_BYTES):
                channel.send(data[at : at + CHUNK_BYTES])
            channel.shutdown(socket.SHUT_WR)
        marker = bridge.read_marker(channel, limit_s)
    finally:
        channel.close()
    bridge.refuse_absent(marker, installation)
    if marker.status == "failed":
        raise _failed(installation, marker)
    return marker.fields


def _failed(installation: bridge.Installation, marker: bridge.Marker) -> errors.CannotConnect:
    path = installation.client_path
    if marker.code in FULL:
        return errors.CannotConnect(
            "disk_full",
            f"The disk or the quota at {path} is full ({marker.detail}). Make room there; it is "
            "tried again.",
            pause_s=DISK_PAUSE_S,
        )
    if marker.code in REFUSED:
        return errors.CannotConnect(
            "path_refused",
            f"The client can't be put into {path} ({marker.detail}). Correct the cluster's client "
            "path, or the rights there.",
            transient=False,
        )
    if marker.code == "open_to_all":
        return errors.CannotConnect(
            "path_refused",
            f"All users may write to {path}, and could replace the client. Take that right away "
            "(chmod o-w), and see that nobody has put anything there; or choose another client "
            "path.",
            transient=False,
        )
    return errors.CannotConnect(
        "upload_failed", f"The client could not be put into {path}: {marker.detail}."
    )
