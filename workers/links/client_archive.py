"""The cluster client as one file: a zip of `cluster_client` and the pure part of `websockets`.

The same sources give the same bytes on any machine: sorted names, one date, nothing compressed
(what zlib makes of its input changes between its versions).
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from . import errors

WEBSOCKETS = "15.0."
"""The releases that the client runs with; the same pin as its requirements."""
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""What a zip can hold at the least."""
NOT_SHIPPED = frozenset({"__pycache__", "venv", "state", "jobs", "log", "settings"})
NOT_NEEDED = frozenset({"legacy", "asyncio", "cli.py"})
"""Of websockets: what the client's threads do not use."""
HASH_DIGITS = 16
MAIN = "cluster_client/__main__.py"
NEEDED = (MAIN, "cluster_client/wrapper.sh", "websockets/sync/server.py")


@dataclass(frozen=True)
class Archive:
    """The client as it is put on a cluster, named by the hash of its bytes."""

    data: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def build_hash(self) -> str:
        """What a daemon that runs from it says of itself. See cluster_client/build.py."""
        return self.sha256[:HASH_DIGITS]

    @property
    def name(self) -> str:
        return name_of(self.build_hash)


def name_of(build_hash: str) -> str:
    """The file from which a daemon of this build runs."""
    return f"client-{build_hash}.pyz"


def build() -> Archive:
    """The archive of the client that is installed here. Raises CannotConnect if it is not whole."""
    client = _directory("cluster_client")
    websockets = _directory("websockets")
    version = metadata.version("websockets")
    if not version.startswith(WEBSOCKETS):
        raise _incomplete(f"websockets {version} is installed, {WEBSOCKETS}x is needed")
    files = {
        **{f"cluster_client/{name}": data for name, data in _files(client, (".py", ".sh"))},
        **{
            f"websockets/{name}": data
            for name, data in _files(websockets, (".py",))
            if not NOT_NEEDED.intersection(Path(name).parts)
        },
        **_license(),
    }
    if missing := [name for name in NEEDED if name not in files]:
        raise _incomplete(f"{', '.join(missing)} is missing")
    files["__main__.py"] = files[MAIN]
    return Archive(_zipped(files))


def _zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EARLIEST)
            entry.create_system = 3  # Unix, wherever this runs
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def _files(top: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    for path in top.rglob("*"):
        place = path.relative_to(top)
        if path.suffix in suffixes and path.is_file() and not NOT_SHIPPED.intersection(place.parts):
            yield place.as_posix(), path.read_bytes()


def _license() -> dict[str, bytes]:
    """That of websockets, which asks to go with each copy."""
    for file in metadata.files("websockets") or ():
        if file.name == "LICENSE":
            return {"websockets/LICENSE": Path(str(file.locate())).read_bytes()}
    return {}


def _directory(package: str) -> Path:
    # Found, not imported: this process needs nothing of what the client does.
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise _incomplete(f"the package {package} is not installed")
    return Path(found.submodule_search_locations[0])


def _incomplete(what: str) -> errors.CannotConnect:
    return errors.CannotConnect(
        "client_incomplete",
        f"The cluster client can't be packed on this worker: {what}. Install the project's locked "
        "requirements.",
        transient=False,
    )
