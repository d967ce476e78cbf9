"""A file here as it is sent to a cluster: its size first, and nothing if it changes meanwhile."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from ... import errors
from . import names
from .terminal import Bar

STDIN = "-"
PIECE_BYTES = 1 << 20


class Unreadable(errors.HpcError):
    """A file here can't be sent as it is; nothing was stored."""

    code = "unreadable"


@dataclass(frozen=True)
class Source:
    """An open file, where in it the bytes begin, and how many there are."""

    file: IO[bytes]
    name: str
    offset: int
    size_bytes: int
    changed_at_ns: int

    def pieces(self, bar: Bar) -> Iterator[bytes]:
        """The bytes. Raises Unreadable, before their end, if they are no longer those of before."""
        self.file.seek(self.offset)
        done_bytes = 0
        shown = names.quoted(self.name)
        bar.progress(shown, 0, self.size_bytes)
        while piece := _read(self.file, self.name, min(PIECE_BYTES, self.size_bytes - done_bytes)):
            done_bytes += len(piece)
            yield piece
            bar.progress(shown, done_bytes, self.size_bytes)
        self._check()  # who sends waits for our end before anything is stored

    def _check(self) -> None:
        now = os.fstat(self.file.fileno())
        if (now.st_size - self.offset, now.st_mtime_ns) == (self.size_bytes, self.changed_at_ns):
            return
        change = f"from {self.size_bytes} to {now.st_size - self.offset} bytes"
        if now.st_size - self.offset == self.size_bytes:
            change = "in its content"
        raise Unreadable(
            f"{names.quoted(self.name)} changed while it was sent ({change}): nothing was stored;"
            " send it again when nobody writes to it."
        )


@contextmanager
def source(path: str) -> Iterator[Source]:
    """The file at `path`; `-` is stdin. Raises Unreadable."""
    if path == STDIN:
        yield from _of_stdin()
        return
    try:
        # A FIFO would wait for a writer for ever before we see that it is one.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        raise Unreadable(f"{names.quoted(path)} can't be read: {problem.strerror}.") from problem
    try:
        _refuse_unless_regular(descriptor, path)
        with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
            yield _source(file, path, 0)
    finally:
        os.close(descriptor)


def _refuse_unless_regular(descriptor: int, path: str) -> None:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        raise Unreadable(f"{names.quoted(path)} is a directory: send an archive of it.")
    if not stat.S_ISREG(mode):
        raise Unreadable(f"{names.quoted(path)} is no regular file: send it through a pipe, as -.")


def _of_stdin() -> Iterator[Source]:
    """A file that stdin is; else what comes through it, once all has come: its size goes first."""
    stdin = sys.stdin.buffer
    if _is_regular(stdin):
        with os.fdopen(os.dup(stdin.fileno()), "rb", buffering=0) as file:
            yield _source(file, "stdin", os.lseek(file.fileno(), 0, os.SEEK_CUR))
        return
    with tempfile.TemporaryFile() as spool:
        _spool(stdin, spool)
        yield _source(spool, "stdin", 0)


def _is_regular(stdin: IO[bytes]) -> bool:
    try:
        return stat.S_ISREG(os.fstat(stdin.fileno()).st_mode)
    except OSError:  # a stream without a descriptor
        return False


def _spool(stdin: IO[bytes], spool: IO[bytes]) -> None:
    try:
        shutil.copyfileobj(stdin, spool, PIECE_BYTES)
        spool.flush()
    except OSError as problem:
        raise Unreadable(
            f"What comes through stdin is kept in {tempfile.gettempdir()} until it is whole, and"
            f" that failed: {problem.strerror}. Set TMPDIR to a disk with room."
        ) from problem


def _source(file: IO[bytes], name: str, offset: int) -> Source:
    found = os.fstat(file.fileno())
    return Source(file, name, offset, max(found.st_size - offset, 0), found.st_mtime_ns)


def _read(file: IO[bytes], name: str, length: int) -> bytes:
    try:
        return file.read(length) if length > 0 else b""
    except OSError as problem:
        raise Unreadable(f"{names.quoted(name)} can't be read: {problem.strerror}.") from problem
