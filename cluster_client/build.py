"""Which client this is: its version and a hash of its files.

Rules:
- Of one file, the hash is that of its bytes, which is in its name too: who has made the file knows
  the hash of the client that runs from it, without running it.
- Of a directory, it is taken over the names and contents of the program's files; the site's
  settings are left out.
"""

from __future__ import annotations

import hashlib
import os

from . import sources

VERSION = "0.1.0"
HASH_DIGITS = 16


def build_hash() -> str:
    """16 hex digits that tell this client from every other one."""
    program = sources.program()
    if not program.endswith("client.py"):
        return _sha256(program).hex()[:HASH_DIGITS]
    top = os.path.dirname(program)
    digest = hashlib.sha256()
    for name in _files(top):
        digest.update(os.path.relpath(name, top).encode() + b"\0" + _sha256(name))
    return digest.hexdigest()[:HASH_DIGITS]


def _sha256(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).digest()


def _files(top: str) -> list[str]:
    found = []
    for package in ("", "protocol", "schedulers"):
        for name in os.listdir(os.path.join(top, package)):
            path = os.path.join(top, package, name)
            if os.path.isfile(path) and name.endswith((".py", ".sh", ".bash")):
                found.append(path)
    return sorted(found)
