"""A file's bytes on their way out: read, hashed and sent, in memory that does not grow."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Callable

from .protocol import messages

CHUNK_LEAST_BYTES = 1 << 10
CHUNK_MOST_BYTES = messages.DATA_LIMIT_BYTES - 16
"""With its header it is not larger than the largest frame of a data link."""

Send = Callable[[memoryview], None]
"""Sends a piece; the buffer behind it is free again once it returns."""


@dataclass(frozen=True)
class Part:
    """What of a file is wanted: `length` bytes from `offset`; all of it lay within `file_bytes`."""

    file_bytes: int
    offset: int
    length: int
    chunk_bytes: int


def part(message: messages.Open, file_bytes: int) -> Part:
    """What `message` asks of a file that has `file_bytes` now."""
    left = max(0, file_bytes - message.offset)
    length = left if message.length < 0 else min(left, message.length)
    chunk_bytes = max(CHUNK_LEAST_BYTES, min(message.chunk_bytes, CHUNK_MOST_BYTES))
    return Part(file_bytes, message.offset, length, min(chunk_bytes, max(1, length)))


def stream(descriptor: int, wanted: Part, send: Send) -> messages.End:
    """Send the part: no more than that if the file grows, and a `problem` if less can be read."""
    view = memoryview(bytearray(wanted.chunk_bytes))
    digest, sent, problem = hashlib.sha256(), 0, ""
    with ThreadPoolExecutor(1) as hasher:
        while sent < wanted.length:
            at = wanted.offset + sent
            try:
                count = os.preadv(descriptor, [view[: wanted.length - sent]], at)
            except OSError as error:
                problem = f"The file can't be read further than byte {at}: {error.strerror}."
                break
            if not count:
                problem = _shrunk(descriptor, wanted, at)
                break
            hashed = hasher.submit(digest.update, view[:count])
            send(view[:count])
            hashed.result()
            sent += count
    return messages.End(bytes_sent=sent, sha256=digest.hexdigest(), problem=problem)


def _shrunk(descriptor: int, wanted: Part, at: int) -> str:
    size = min(at, os.fstat(descriptor).st_size)
    return f"The file shrank from {wanted.file_bytes} to {size} bytes while it was sent."
