"""The bridge between stdin, stdout and the daemon's socket; standard library only, fast to start.

    HPC-BRIDGE 1 {"status": "connected", ...}

is the only line it prints of its own, after whatever start-up files printed. Then bytes flow both
ways until one side ends. Every other status ends the program after the line:

- `none`          no daemon is registered
- `stale`         one is, on this host, and is dead or does not answer
- `elsewhere`     one is, on another host
- `incompatible`  one runs, and speaks no protocol version that the caller speaks
"""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from typing import Any, NamedTuple, Optional

from . import errors, host, registry, sources

MARKER = "HPC-BRIDGE 1 "
BUFFER_BYTES = 1 << 18
CONNECT_LIMIT_S = 10.0
CLOSE_LIMIT_S = 10.0


class Answer(NamedTuple):
    """What `dial` found; `link` is open if `status` is `connected`."""

    status: str
    host: str
    detail: str
    versions: tuple[int, ...] = ()
    last_death: str = ""
    link: Optional[socket.socket] = None
    build_hash: str = ""


def main(key: str, versions: tuple[int, ...] = ()) -> int:
    """Bridge stdio to the daemon of `key`; `versions` are those the caller speaks, if it says."""
    sources.parse_key(key)
    try:
        answer = find(os.path.join(sources.state_root(sources.client_path()), key), versions)
    except errors.SettingsError as error:  # `start` will refuse with the same sentence
        answer = Answer("none", host.host_name(), str(error))
    marker(
        status=answer.status,
        host=answer.host,
        detail=answer.detail,
        versions=list(answer.versions),
        build_hash=answer.build_hash,
        last_death=answer.last_death,
    )
    if answer.link is not None:
        bridge(answer.link)
    return 0


def marker(**fields: Any) -> None:
    """Print the line that readers skip to."""
    write_all(1, (MARKER + json.dumps(fields) + "\n").encode())


def find(state_directory: str, versions: tuple[int, ...] = ()) -> Answer:
    """Look for the daemon that serves from `state_directory`, and connect to it."""
    here = host.host_name()
    last_death = registry.read_last_death(state_directory)
    try:
        os.stat(os.path.join(state_directory, registry.REGISTRY))
    except FileNotFoundError:
        return Answer("none", here, "No daemon is registered.", (), last_death)
    except OSError as error:
        detail = f"The registry in {state_directory} can't be read: {error.strerror}."
        return Answer("stale", here, detail, (), last_death)
    entry = registry.read(state_directory)
    if entry is None:
        detail = f"The registry in {state_directory} is damaged."
        return Answer("stale", here, detail, (), last_death)
    return _judge(entry, versions, last_death)._replace(build_hash=entry.build_hash)


def _judge(entry: registry.Entry, versions: tuple[int, ...], last_death: str) -> Answer:
    spoken = entry.versions
    if not entry.is_here():
        detail = f"The daemon is registered on {entry.host}; this is {host.host_name()}."
        return Answer("elsewhere", entry.host, detail, spoken, last_death)
    if not entry.is_alive():
        detail = f"The daemon of generation {entry.generation}, pid {entry.pid}, is dead."
        return Answer("stale", entry.host, detail, spoken, registry.VANISHED)
    if versions and not set(versions) & set(spoken):
        detail = f"The daemon speaks protocol {list(spoken)}, the caller {list(versions)}."
        return Answer("incompatible", entry.host, detail, spoken, last_death)
    if not entry.socket:
        detail = f"The daemon, pid {entry.pid}, is attached to another connection."
        return Answer("stale", entry.host, detail, spoken, last_death)
    try:
        link = connect(entry.socket)
    except OSError as error:
        detail = f"The daemon, pid {entry.pid}, does not answer on its socket: {error}."
        return Answer("stale", entry.host, detail, spoken, last_death)
    detail = f"Connected to the daemon, pid {entry.pid}, generation {entry.generation}."
    return Answer("connected", entry.host, detail, spoken, last_death, link)


def connect(path: str) -> socket.socket:
    """A connection to the daemon's socket, whose directory must be ours alone."""
    found = os.lstat(os.path.dirname(path))
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not is_ours or found.st_mode & 0o077:
        raise PermissionError(f"{os.path.dirname(path)} is not a private directory of ours")
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        link.settimeout(CONNECT_LIMIT_S)
        link.connect(path)
        link.settimeout(None)
    except OSError:
        link.close()
        raise
    return link


def bridge(link: socket.socket) -> None:
    """Copy bytes both ways until the daemon's side ends; ends the process.

    When stdin ends, the daemon is told so and has a bounded time to end its side.
    """
    finished = threading.Event()

    def send() -> None:
        _pump(0, link.fileno())
        try:
            link.shutdown(socket.SHUT_WR)
        except OSError:
            finished.set()  # the daemon is gone already
        finished.wait(CLOSE_LIMIT_S)
        os._exit(0)

    threading.Thread(target=send, daemon=True).start()
    _pump(link.fileno(), 1)
    # The sender may be blocked in a read of stdin that nobody ends: leave it behind.
    os._exit(0)


def _pump(source: int, sink: int) -> None:
    try:
        while True:
            data = os.read(source, BUFFER_BYTES)
            if not data:
                return
            write_all(sink, data)
    except OSError:
        return  # a closed end is how a bridge ends


def write_all(sink: int, data: bytes) -> None:
    """Write all of `data` to descriptor `sink`."""
    view = memoryview(data)
    while view:
        view = view[os.write(sink, view) :]
