"""PURE: what comes, and what goes, of a file: counted, hashed, judged, cut into pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from .. import errors, publish
from ..relay.frames import Bytes, Frame, Kind, json_of


class Arrival:
    """Judges what comes of a file. The last piece is held back until all is verified."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._hash = hashlib.sha256()
        self.done_bytes = 0
        self.held: bytes = b""
        """The piece that must not be given out yet."""
        self.sha256 = ""
        """Of the whole file, once it is whole."""

    def take(self, frame: Frame) -> bytes:
        """The piece that may be given out now, or nothing. Raises TransferBroken."""
        if frame.kind is Kind.DATA:
            return self._take_piece(bytes(frame.payload))
        if frame.kind is Kind.END:
            self._verify(json_of(frame))
            return b""
        if frame.kind is Kind.ERROR:
            raise errors.TransferBroken(str(publish.error_from(json_of(frame))))
        raise errors.TransferBroken(f"A frame {frame.kind.name} came in the middle of a file.")

    def _take_piece(self, piece: bytes) -> bytes:
        if not piece:
            return b""  # held in place of the last one, it would set that free
        self.done_bytes += len(piece)
        if self.done_bytes > self._size_bytes:
            raise errors.TransferBroken(
                f"More came of the file than the {self._size_bytes} bytes that it had: it grew"
                " meanwhile; fetch it again."
            )
        self._hash.update(piece)
        piece, self.held = self.held, piece
        return piece

    def _verify(self, told: dict[str, Any]) -> None:
        if not self.done_bytes == self._size_bytes == told.get("bytes_sent"):
            raise errors.TransferBroken(
                f"{self.done_bytes} of the file's {self._size_bytes} bytes came: fetch it again."
            )
        digest = self._hash.hexdigest()
        if digest != told.get("sha256"):
            raise errors.TransferBroken(
                "The file was damaged on its way (its sha256 differs): fetch it again."
            )
        self.sha256 = digest


class Departure:
    """Cuts a file into pieces of one size, counted and hashed as they go."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._hash = hashlib.sha256()
        self.done_bytes = 0

    @property
    def sha256(self) -> str:
        """Of what went so far."""
        return self._hash.hexdigest()

    def receipt(self) -> dict[str, Any]:
        """What END says."""
        return {"bytes_sent": self.done_bytes, "sha256": self.sha256}

    def pieces(self, source: Iterable[Bytes], piece_bytes: int) -> Iterator[Bytes]:
        """The source in pieces of `piece_bytes`; the last may be shorter.

        Raises Invalid where the source holds more, or less, than was announced.
        """
        for piece in chunked(source, piece_bytes):
            self.done_bytes += len(piece)
            if self.done_bytes > self._size_bytes:
                raise self._differs("more")
            self._hash.update(piece)
            yield piece
        if self.done_bytes < self._size_bytes:
            raise self._differs("no more")

    def _differs(self, words: str) -> errors.Invalid:
        return errors.Invalid(
            f"The file was announced with {self._size_bytes} bytes, and {words} came"
            f" ({self.done_bytes}): nothing was stored; send it again with its size."
        )


def chunked(source: Iterable[Bytes], piece_bytes: int) -> Iterator[Bytes]:
    """The same bytes in pieces of `piece_bytes`, the last shorter; no piece is empty."""
    gathered = bytearray()
    for given in source:
        rest = memoryview(given)
        if gathered:
            missing = piece_bytes - len(gathered)
            gathered += rest[:missing]
            rest = rest[missing:]
            if len(gathered) < piece_bytes:
                continue
            yield gathered
            gathered = bytearray()
        while len(rest) >= piece_bytes:
            yield rest[:piece_bytes]
            rest = rest[piece_bytes:]
        gathered += rest
    if gathered:
        yield gathered
