"""Pages of a directory, sorted by the names' bytes; only what is on the page is looked at.

The sorted names are kept for the next page of the same directory: within a bounded number and time,
and only while nothing was added to it or removed. What was removed meanwhile is left out.
"""

from __future__ import annotations

import base64
import binascii
import bisect
import os
import stat
import sys
import time
from dataclasses import dataclass
from typing import Optional

from . import confinement, errors
from .protocol import codec, messages

ENTRIES_LIMIT = 10_000
PAGE_LIMIT_BYTES = messages.DATA_LIMIT_BYTES - (1 << 10)
ENTRY_BYTES = 160
"""Of an entry's frame, besides its name and target."""
NAME_FACTOR, TARGET_FACTOR = 8, 6
"""JSON escapes a byte by 6 characters at most; names come in base64 too."""
NAMES_LIMIT = 100_000
"""Names in memory; of larger directories no more than a page is sorted out at a time."""
KEPT_LIMIT_S = 60.0
SETTLED_S = 2.0
"""A directory that was changed a moment ago may be changed again without a new time of change."""

KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


@dataclass(frozen=True)
class _Kept:
    """All names of one directory, sorted."""

    state: tuple[int, ...]
    names: list[bytes]
    at: float


class Lister:
    """Lists directories of jobs; used by one thread."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._kept: Optional[_Kept] = None

    def page(self, message: messages.List) -> messages.Listed:
        """One page. Raises PathRefused, InvalidRequest."""
        after = _decoded(message.after_b64)
        limit = max(1, min(message.limit, ENTRIES_LIMIT))
        with confinement.walk(self._root, message.tag, message.path) as found:
            handle = _open(found)
        try:
            while True:
                names, is_last = self._names(handle, after, limit)
                listed = _page(handle, names, is_last)
                if listed.entries or listed.is_complete:
                    return listed
                after = names[-1]  # all of these have vanished: an empty page says "no more"
        finally:
            os.close(handle)

    def _names(self, handle: int, after: bytes, limit: int) -> tuple[list[bytes], bool]:
        """Up to `limit` names behind `after`, and whether they are the last ones."""
        state = _state(handle)
        kept = self._kept
        if kept is None or kept.state != state or time.monotonic() - kept.at > KEPT_LIMIT_S:
            names, is_all = _sorted(handle, after, limit)
            self._kept = kept = _Kept(state, names, time.monotonic())
            if not is_all or after or not _is_settled(handle):
                self._kept = None
        begin = bisect.bisect_right(kept.names, after)
        page = kept.names[begin : begin + limit]
        return page, len(kept.names) <= begin + limit


def _open(found: confinement.Found) -> int:
    try:
        return found.open_directory()
    except OSError as error:
        raise errors.PathRefused(f"{found.shown} can't be opened: {error.strerror}.") from None


def _sorted(handle: int, after: bytes, limit: int) -> tuple[list[bytes], bool]:
    """The names behind `after`, sorted: all of them, or no more than a page needs."""
    names: list[bytes] = []
    is_all = True
    coding = sys.getfilesystemencoding()
    with os.scandir(handle) as entries:
        for entry in entries:
            name = entry.name.encode(coding, "surrogateescape")  # what os.fsencode does, quicker
            if name <= after:
                continue
            names.append(name)
            if len(names) > NAMES_LIMIT:
                names.sort()
                del names[limit + 1 :]
                is_all = False
    names.sort()
    return names, is_all


def _state(handle: int) -> tuple[int, ...]:
    found = os.fstat(handle)
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _is_settled(handle: int) -> bool:
    return os.fstat(handle).st_mtime < time.time() - SETTLED_S


def _page(handle: int, names: list[bytes], is_last: bool) -> messages.Listed:
    entries: list[messages.Entry] = []
    size = 0
    for name in names:
        one = _lstat(handle, name)
        if one is None:
            continue  # removed meanwhile
        size += ENTRY_BYTES + NAME_FACTOR * len(name) + TARGET_FACTOR * len(one.target)
        if entries and size > PAGE_LIMIT_BYTES:
            return messages.Listed(tuple(entries), is_complete=False)
        entries.append(one)
    return messages.Listed(tuple(entries), is_complete=is_last)


def _lstat(directory: int, name: bytes) -> Optional[messages.Entry]:
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        is_link = stat.S_ISLNK(status.st_mode)
        target = os.readlink(name, dir_fd=directory) if is_link else b""
    except OSError:
        return None
    return entry(name, status, target)


def entry(name: bytes, status: os.stat_result, target: bytes = b"") -> messages.Entry:
    """What a page says of one name."""
    made: messages.Entry = codec.made(
        messages.Entry,
        {
            "name": name.decode("utf-8", "replace"),
            "name_b64": binascii.b2a_base64(name, newline=False).decode("ascii"),
            "type": KINDS.get(status.st_mode & 0o170000, "other"),
            "size_bytes": status.st_size,
            "mtime": status.st_mtime,
            "target": target.decode("utf-8", "replace"),
        },
    )
    return made


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise errors.InvalidRequest("after_b64 is not base64.") from None
