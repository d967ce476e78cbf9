"""Who serves a key: the registry file, and what became of its last daemon.

The registry informs; the fence decides. It is written by the daemon that serves (registration),
whole and by rename, and removed by it when it ends. One that names a dead process tells of a
death without a farewell.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple, Optional

from . import host

REGISTRY = "registry"
LAST_DEATH = "last_death"
LIMIT_BYTES = 1 << 16
VANISHED = "The daemon vanished without a word: killed, or the node rebooted."


class Entry(NamedTuple):
    """A daemon that said that it serves; `socket` is "" for one that lives on its stdio."""

    generation: int
    host: str
    pid: int
    starttime: int
    boot_id: str
    socket: str
    started_at: float
    build_hash: str
    versions: tuple[int, ...]

    def is_here(self) -> bool:
        """Whether that daemon runs, or ran, on this host."""
        return self.host == host.host_name()

    def is_alive(self) -> bool:
        """Whether that very process runs on this host."""
        return (
            self.is_here()
            and self.boot_id == host.boot_id()
            and self.starttime == host.start_time(self.pid)
        )

    def is_same_process(self, other: Optional[Entry]) -> bool:
        mine = (self.host, self.boot_id, self.pid, self.starttime)
        return other is not None and mine == (
            other.host,
            other.boot_id,
            other.pid,
            other.starttime,
        )


def read(state_directory: str) -> Optional[Entry]:
    """The entry, or None without one that can be read."""
    raw = _read_json(os.path.join(state_directory, REGISTRY))
    try:
        return _entry(raw)
    except (KeyError, TypeError, ValueError):
        return None


def read_last_death(state_directory: str) -> str:
    """What the last daemon said when it ended; "" if it said nothing."""
    try:
        with open(os.path.join(state_directory, LAST_DEATH), encoding="utf-8") as file:
            return file.read(LIMIT_BYTES).strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _read_json(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            return json.loads(file.read(LIMIT_BYTES))
    except (OSError, ValueError):
        return None


def _entry(raw: Any) -> Entry:
    return Entry(
        generation=int(raw["generation"]),
        host=str(raw["host"]),
        pid=int(raw["pid"]),
        starttime=int(raw["starttime"]),
        boot_id=str(raw["boot_id"]),
        socket=str(raw["socket"]),
        started_at=float(raw["started_at"]),
        build_hash=str(raw["build_hash"]),
        versions=tuple(int(version) for version in raw["versions"]),
    )
