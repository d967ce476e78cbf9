"""What a run has left behind: processes, sockets, directories."""

from __future__ import annotations

import contextlib
import glob
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster_client import socket_directory

PROC = Path("/proc")
STEP_S = 0.05


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


@contextmanager
def sockets_watched(place: Path) -> Iterator[set[Path]]:
    """The socket directories of the daemons that stacks in `place` have had so far.

    Other daemons of this user may come and go meanwhile: those are not looked at.
    """
    found: set[Path] = set()
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(STEP_S):
            # Unlike Path.glob it does not mind what goes away meanwhile.
            states = glob.glob(f"{glob.escape(str(place))}/*/cluster_client/state/*.*")  # noqa: PTH207
            found.update(Path(socket_directory.usual_path(state)) for state in states)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield found
    finally:
        is_over.set()
        watcher.join()
