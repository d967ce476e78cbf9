"""One line of JSON on a descriptor: how start documents and reports travel."""

from __future__ import annotations

import json
import os
import select
import time
from typing import Any

from . import errors

LIMIT_BYTES = 1 << 20


def read_line(descriptor: int, limit_s: float) -> bytes:
    """Bytes up to and including the first newline, or what came before the end.

    Reads not one byte more: what follows may be another protocol. Raises TimeoutError.
    """
    deadline = time.monotonic() + limit_s
    line = bytearray()
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(f"No line came within {limit_s:g} s.")
        byte = os.read(descriptor, 1)
        if not byte:
            break
        line += byte
        if len(line) > LIMIT_BYTES:
            raise errors.InvalidRequest(f"A line of over {LIMIT_BYTES} bytes came.")
    return bytes(line)


def read_object(descriptor: int, limit_s: float, what: str) -> dict[str, Any]:
    """The JSON object in the next line; InvalidRequest says that `what` is none."""
    try:
        line = read_line(descriptor, limit_s)
    except TimeoutError:
        raise errors.InvalidRequest(f"{what} did not come within {limit_s:g} s.") from None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise errors.InvalidRequest(f"{what} is no JSON: {error}.") from None
    if not isinstance(found, dict):
        raise errors.InvalidRequest(f"{what} must be a JSON object.")
    return found


def write_object(descriptor: int, fields: dict[str, Any]) -> None:
    """Write `fields` as one line."""
    view = memoryview((json.dumps(fields) + "\n").encode())
    while view:
        view = view[os.write(descriptor, view) :]
