"""What a run has left behind: processes, sockets, directories."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

PROC = Path("/proc")


def processes(word: str) -> dict[int, str]:
    """All processes, ours or not, that name `word` in argv, environment, place or open files."""
    found = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            # It may end while it is looked at.
            with contextlib.suppress(OSError):
                if os.fsencode(word) in _texts(entry):
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
    return found


def _texts(entry: Path) -> bytes:
    links = [entry / "cwd", *(entry / "fd").iterdir()]
    places = [os.fsencode(os.readlink(link)) for link in links if link.is_symlink()]  # noqa: PTH115
    return b"\0".join([(entry / "cmdline").read_bytes(), (entry / "environ").read_bytes(), *places])


def socket_directories() -> set[Path]:
    """Where daemons of this user had their sockets: those that no living process has open."""
    found = Path("/tmp").glob(f"hpc-{os.geteuid()}-*")
    return {path for path in found if not processes(str(path))}
