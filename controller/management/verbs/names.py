"""Names of files between a cluster, a terminal and a shell.

Rules:
- A name is bytes. On the command line they come as Python has them, undecodable ones as lone
  surrogates (PEP 383), and go to the cluster so.
- A name that is shown can be pasted into a shell again, and can't make a terminal do anything: what
  is not printable is written as `$'\\033'`, as GNU ls does.
  Source: https://www.gnu.org/software/bash/manual/html_node/ANSI_002dC-Quoting.html
- A name that a cluster sent is never a path here.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from typing import Any

from ... import errors

PLAIN = re.compile(r"[\w@%+=:,./-]+")
"""What a shell takes as it stands."""


def quoted(name: str | bytes | os.PathLike[str]) -> str:
    """The name as a shell's word, printable whatever it holds."""
    raw = os.fsencode(name)
    text = raw.decode("utf-8", "surrogateescape")
    if all(character.isprintable() for character in text):
        if PLAIN.fullmatch(text):
            return text
        return "'" + text.replace("'", "'\\''") + "'"
    return "$'" + "".join(_escaped(character) for character in text) + "'"


def of_entry(entry: dict[str, Any]) -> bytes:
    """The exact name of an entry of a listing. Raises Refused if the cluster sent none."""
    try:
        name = base64.b64decode(entry["name_b64"], validate=True)
    except (KeyError, TypeError, binascii.Error, ValueError):
        name = b""
    if not name or b"/" in name or b"\0" in name:
        raise errors.Refused(
            f"The cluster listed a name that no file can have ({str(entry.get('name'))[:80]!r}):"
            " its client is broken, bootstrap the cluster."
        )
    return name


def last_of(path: str) -> str:
    """The last name in a path, to store a file under; "" if it ends with none."""
    name = path.rpartition("/")[2]
    return "" if name in (".", "..") else name


def described(path: str | os.PathLike[str]) -> dict[str, str]:
    """A path for JSON: lossy as text that can be written anywhere, exact as base64."""
    raw = os.fsencode(path)
    return {"path": raw.decode("utf-8", "replace"), "path_b64": base64.b64encode(raw).decode()}


def _escaped(character: str) -> str:
    if character in "\\'":
        return "\\" + character
    if character == "\n":
        return "\\n"
    if character == "\t":
        return "\\t"
    if character.isprintable():
        return character
    # Three octal digits end by themselves: `\x1b` followed by `c` would be read as one.
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
