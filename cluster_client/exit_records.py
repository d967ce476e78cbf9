"""What wrappers have written into a job's directory: how its script ended, or why it did not start.

The names are KIND.TASK.RUN, with the host and the process behind it where many may fail.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from typing import Any, Optional

from cluster_client import schedulers
from cluster_client.filesystem import Filesystem
from cluster_client.schedulers import Sighting

logger = logging.getLogger(__name__)

_LIMIT_BYTES = 65536


def end(fs: Filesystem, directory: str) -> Optional[Sighting]:
    """The end that the records of the newest restart tell, of all tasks together; None: none."""
    newest: dict[str, tuple[int, str]] = {}
    for name in fs.listdir(directory):
        kind, _, rest = name.partition(".")
        task, _, run = rest.partition(".")
        if kind == "exit" and run.isdigit():
            newest[task] = max(newest.get(task, (-1, "")), (int(run), name))
    ends = []
    for run_number, name in newest.values():
        fields = _fields(fs, os.path.join(directory, name))
        try:
            sighting = schedulers.sighting_of_exit(
                int(fields["exit"]), float(fields.get("end", 0)), words="exit record"
            )
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            logger.warning("exit record unreadable", extra={"record": name, "cause": str(error)})
            return None
        ends.append(replace(sighting, run=run_number))
    if not ends:
        return None
    return ends[0] if list(newest) == ["-"] else schedulers.array_sighting(ends)


def refusal(fs: Filesystem, directory: str) -> str:
    """Why the newest wrapper that refused to start the script did so; "" if none did."""
    names = [name for name in fs.listdir(directory) if name.startswith("refused.")]
    told = [_fields(fs, os.path.join(directory, name)) for name in names]
    told.sort(key=lambda fields: str(fields.get("end", "")))
    return str(told[-1].get("words", ""))[:500] if told else ""


def _fields(fs: Filesystem, path: str) -> dict[str, Any]:
    """What a record holds; nothing if the job has spoilt it."""
    try:
        fields = json.loads(fs.read(path, _LIMIT_BYTES) or b"")
    except ValueError as error:
        logger.warning("record unreadable", extra={"record": path, "cause": str(error)})
        return {}
    return fields if isinstance(fields, dict) else {}
