"""The start document of a key, kept in its state directory; light, because `files` reads it too."""

from __future__ import annotations

import json
import os
from typing import Any

from . import errors, sources
from .fence import Fence
from .filesystem import Filesystem

NAME = "document"


def keep(state_directory: str, raw: dict[str, Any]) -> None:
    """Keep the document of a start for those that come without one."""
    text = json.dumps(raw) + "\n"
    Filesystem().write_durably(os.path.join(state_directory, NAME), text.encode())


def last(key: str) -> dict[str, Any]:
    """The start document of the last start; a plain one if there was none."""
    instance, number = sources.parse_key(key)
    state_directory = os.path.join(sources.state_root(sources.client_path()), key)
    path = os.path.join(state_directory, NAME)
    text = Filesystem().read(path)
    if text is None:
        generation = Fence(Filesystem(), state_directory, 1).read().generation
        return {"instance_id": instance, "cluster_id": number, "generation": max(1, generation)}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise errors.StoreDamaged(f"{path} is no JSON: {error}. Remove it.") from None
    if not isinstance(found, dict):
        raise errors.StoreDamaged(f"{path} is no start document. Remove it.")
    return found
