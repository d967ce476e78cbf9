"""A process of its own that swaps names in a job's directory for links that lead out, and back.

Run as a script: pairs of paths to exchange, until it is killed.
"""

from __future__ import annotations

import ctypes
import os
import sys

RENAME_EXCHANGE = 2
"""Both names change places at once: there is always something under each. Source: rename(2)"""


def main(pairs: list[tuple[str, str]]) -> None:
    """Exchange one pair after the other, for ever, by the directories as they are now."""
    libc = ctypes.CDLL(None, use_errno=True)
    places = [(_place(one), _place(other)) for one, other in pairs]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        for one, other in places:
            if libc.renameat2(*one, *other, RENAME_EXCHANGE):
                sys.exit(f"renameat2: {os.strerror(ctypes.get_errno())}")


def _place(path: str) -> tuple[int, bytes]:
    directory, name = os.path.split(os.fsencode(path))
    return os.open(directory, os.O_PATH | os.O_DIRECTORY), name


if __name__ == "__main__":
    words = sys.argv[1:]
    main(list(zip(words[::2], words[1::2], strict=True)))
