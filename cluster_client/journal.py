"""Lines of the store's files: one JSON object each, with a number and a checksum.

Rules:
- A line is `<crc32 of the rest, 8 hex> <JSON object>\\n`; its "n" grows by one from line to line.
- The first line that is cut, wrong or out of order ends the file: what follows was never answered
  to anybody, since an answer waits for the fsync behind its line.
- A snapshot is such a file that ends with a line of type "end"; without it there is no snapshot.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from typing import Any, Optional

Entry = dict[str, Any]


def encode(entry: Entry) -> bytes:
    body = json.dumps(entry, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def decode_line(line: bytes) -> Optional[Entry]:
    """The entry of one line without its newline, or None if it is damaged."""
    checksum, _, body = line.partition(b" ")
    try:
        if len(checksum) != 8 or int(checksum, 16) != zlib.crc32(body):
            return None
        entry = json.loads(body)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("n"), int) else None


def decode(data: bytes) -> tuple[list[Entry], int]:
    """The good entries from the start, and the number of bytes left unread behind them."""
    entries: list[Entry] = []
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        entry = decode_line(data[start:end])
        if entry is None or (entries and entry["n"] != entries[-1]["n"] + 1):
            break
        entries.append(entry)
        start = end + 1
    return entries, len(data) - start


def encode_snapshot(entries: Iterable[Entry]) -> bytes:
    lines = [encode({**entry, "n": number}) for number, entry in enumerate(entries)]
    lines.append(encode({"n": len(lines), "t": "end"}))
    return b"".join(lines)


def decode_snapshot(data: bytes) -> Optional[list[Entry]]:
    """The entries of a snapshot, or None if it is not a whole one."""
    entries, rest = decode(data)
    if rest or not entries or entries[-1].get("t") != "end":
        return None
    return entries[:-1]
