"""Directories of jobs, page by page, and entries as lines."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.utils import timezone

from ... import errors
from ...models import HpcJob
from ...services import files
from . import figures, names

PAGE = 10_000
"""Entries asked for at once; a client may give fewer."""

MARKS = {"file": "-", "directory": "d", "link": "l"}


class Listing:
    """The entries after a name, in the order of the names' bytes; afterwards whether it was all."""

    def __init__(self, job: HpcJob, path: str, after: bytes, limit: int | None) -> None:
        self._job = job
        self._path = path
        self._left = limit
        self.last = after
        self.is_complete = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Asks for the next page when the one before is used up."""
        while not self.is_complete and self._left != 0:
            for entry in self._page():
                self._step_to(names.of_entry(entry))
                yield entry

    def _page(self) -> list[dict[str, Any]]:
        wanted = PAGE if self._left is None else min(PAGE, self._left)
        after_b64 = base64.b64encode(self.last).decode()
        page = files.list_directory(self._job, self._path, after_b64=after_b64, limit=wanted)
        entries: list[dict[str, Any]] = page["entries"][:wanted]
        self.is_complete = bool(page["is_complete"]) and len(page["entries"]) <= wanted
        if not entries and not self.is_complete:
            raise errors.Refused(
                f"The list of {shown(self._path)} of job {self._job.pk} does not go on: the"
                " cluster's client is broken, bootstrap the cluster."
            )
        if self._left is not None:
            self._left -= len(entries)
        return entries

    def _step_to(self, name: bytes) -> None:
        """Whoever sends the same names again and again would keep us for ever."""
        if name <= self.last and self.last:
            raise errors.Refused(
                f"The list of {shown(self._path)} of job {self._job.pk} is out of order at"
                f" {names.quoted(name)}: the cluster's client is broken, bootstrap the cluster."
            )
        self.last = name


def line(entry: dict[str, Any], is_long: bool) -> str:
    """An entry for people: its name as a shell takes it, a directory's with a slash."""
    name = names.quoted(names.of_entry(entry)) + ("/" if entry["type"] == "directory" else "")
    if not is_long:
        return name
    target = f" -> {names.quoted(entry['target'])}" if entry["type"] == "link" else ""
    amount = "" if entry["type"] == "directory" else figures.size(entry["size_bytes"])
    mark = MARKS.get(entry["type"], "?")
    return f"{mark}  {amount:>9}  {changed(entry):<16}  {name}{target}"


def changed(entry: dict[str, Any]) -> str:
    """When the entry was changed, in the site's time zone; nothing if no clock could show it."""
    try:
        at = datetime.fromtimestamp(entry["mtime"], tz=timezone.get_current_timezone())
    except (OverflowError, ValueError, OSError):
        return ""
    return f"{at:%Y-%m-%d %H:%M}"


def document(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry as `--json` tells it: `name` may be lossy, `name_b64` is exact."""
    mtime = entry["mtime"]
    return {
        "name": entry["name"],
        "name_b64": entry["name_b64"],
        "type": entry["type"],
        "size_bytes": entry["size_bytes"],
        "mtime": mtime if math.isfinite(mtime) else None,
        "target": entry["target"],
    }


def shown(path: str) -> str:
    """A path of a job in a sentence."""
    return names.quoted(path) if path.strip("/.") else "the directory"
