"""PURE: the frames on a relay: one byte kind, four bytes length (big-endian), payload.

Rules:
- A stream ends with END, or it did not end: what breaks off is never whole.
- All kinds but DATA carry a JSON object. Every kind has a limit, judged before anything is stored.
- Nothing is copied: the reader says where the next bytes are wanted.
"""

from __future__ import annotations

import enum
import json
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .. import errors

HEAD = struct.Struct(">cI")
JSON_LIMIT_BYTES = 64 << 10
DATA_LIMIT_BYTES = 4 << 20

Bytes = bytes | bytearray | memoryview


class Kind(bytes, enum.Enum):
    """What a frame says."""

    HELLO = b"H"
    START = b"S"
    DATA = b"D"
    END = b"E"
    ERROR = b"X"
    ACK = b"A"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it came."""

    kind: Kind
    payload: Bytes


def head(kind: Kind, size_bytes: int) -> bytes:
    """What goes before a payload of this size. ValueError if that is too much."""
    if size_bytes > limit_bytes(kind):
        raise ValueError(f"{size_bytes} bytes are too much for a frame {kind.name}.")
    return HEAD.pack(kind.value, size_bytes)


def limit_bytes(kind: Kind) -> int:
    """The longest payload of this kind."""
    return DATA_LIMIT_BYTES if kind is Kind.DATA else JSON_LIMIT_BYTES


def payload_of(document: Mapping[str, Any]) -> bytes:
    """The payload that says `document`."""
    return json.dumps(document, separators=(",", ":")).encode()


def json_of(frame: Frame) -> dict[str, Any]:
    """What a frame other than DATA says; an empty payload says {}. Raises TransferBroken."""
    try:
        document = json.loads(bytes(frame.payload) or b"{}")
    except (ValueError, RecursionError) as error:
        raise errors.TransferBroken(
            f"A frame {frame.kind.name} of a transfer holds no JSON: start it again."
        ) from error
    if not isinstance(document, dict):
        raise errors.TransferBroken(
            f"A frame {frame.kind.name} of a transfer holds no object: start it again."
        )
    return document


class Reader:
    """Makes frames of bytes that come in pieces of any size.

    Fill the front of `space`, tell how much by `take`; then `space` is another. `only`: the kinds
    that are taken here.
    """

    def __init__(self, only: Collection[Kind] = frozenset(Kind)) -> None:
        self._only = only
        self._kind: Kind | None = None
        self.space = memoryview(bytearray(HEAD.size))
        """Where the next bytes are wanted; never empty."""
        self._whole = self.space

    def take(self, count: int) -> Frame | None:
        """`count` bytes were put into `space`; returns the frame that is whole by them."""
        self.space = self.space[count:]
        if len(self.space):
            return None
        if self._kind is None:
            self._kind, size_bytes = self._read_head()
            self._expect(size_bytes)
            if size_bytes:
                return None
        frame = Frame(self._kind, self._whole)
        self._kind = None
        self._expect(HEAD.size)
        return frame

    def _expect(self, size_bytes: int) -> None:
        self._whole = self.space = memoryview(bytearray(size_bytes))

    def _read_head(self) -> tuple[Kind, int]:
        letter, size_bytes = HEAD.unpack(self._whole)
        try:
            kind = Kind(letter)
        except ValueError:
            raise errors.TransferBroken("What came is no frame of a transfer.") from None
        if kind not in self._only:
            raise errors.TransferBroken(f"A frame {kind.name} came out of turn.")
        if size_bytes > limit_bytes(kind):
            raise errors.TransferBroken(
                f"A frame {kind.name} of {size_bytes} bytes came; {limit_bytes(kind)} are allowed."
            )
        return kind, size_bytes
