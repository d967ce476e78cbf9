"""Paths inside a job's directory, walked with directory handles.

Rules:
- A path is relative, without `..`, NUL or over-long names; `.` and doubled slashes say nothing.
- Each step opens one name below the handle before it, without following it (O_PATH, O_NOFOLLOW).
  So nothing that is swapped in meanwhile can lead elsewhere.
- A link is read and its target walked in the same way: `..` goes to the handle before, and never
  above the job's directory; an absolute target must begin with the job's directory.
- What is opened for reading was seen to be a regular file first, and is opened through its handle:
  no FIFO, device or socket is ever opened. Source: open(2), O_PATH; proc(5), /proc/self/fd.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from . import errors

PATH_LIMIT_BYTES = 4096
NAME_LIMIT_BYTES = 255
LINKS_LIMIT = 40
TAG = re.compile(r"[a-z][a-z2-7]{14}")

_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Found:
    """What a path led to: an O_PATH handle (never of a link) and what it is."""

    handle: int
    status: os.stat_result

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.status.st_mode)

    def open_file(self) -> int:
        """A descriptor to read the file; PathRefused for anything that is none."""
        if not self.is_file:
            raise errors.PathRefused("It is not a regular file and can't be read.")
        return os.open(f"/proc/self/fd/{self.handle}", os.O_RDONLY | os.O_CLOEXEC)

    def open_directory(self) -> int:
        """A descriptor to list the directory; PathRefused for anything that is none."""
        if not self.is_directory:
            raise errors.PathRefused("It is not a directory and can't be listed.")
        return os.open(f"/proc/self/fd/{self.handle}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@contextlib.contextmanager
def walk(working_directory: str, tag: str, path: str) -> Iterator[Found]:
    """What `path` in the directory of job `tag` leads to; PathRefused says why not."""
    if not TAG.fullmatch(tag):
        raise errors.PathRefused(f"{tag[:40]!r} is not the tag of a job.")
    walker = _Walker(working_directory, tag, path)
    try:
        yield walker.find()
    finally:
        walker.close()


def split(path: str) -> list[bytes]:
    """The names in a path that a server asked for."""
    raw = path.encode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise errors.PathRefused("The path holds a NUL.")
    if len(raw) > PATH_LIMIT_BYTES:
        raise errors.PathRefused(f"The path is over {PATH_LIMIT_BYTES} bytes.")
    if raw.startswith(b"/"):
        raise errors.PathRefused("The path must be relative to the job's directory.")
    names = [name for name in raw.split(b"/") if name not in (b"", b".")]
    if b".." in names:
        raise errors.PathRefused("The path must not hold '..'.")
    if any(len(name) > NAME_LIMIT_BYTES for name in names):
        raise errors.PathRefused(f"A name in the path is over {NAME_LIMIT_BYTES} bytes.")
    return names


class _Walker:
    def __init__(self, working_directory: str, tag: str, path: str) -> None:
        self._names = split(path)
        self._names.reverse()
        self._links = 0
        self._handles: list[int] = []
        top = os.path.join(working_directory, tag)
        self._top = os.fsencode(top)
        try:
            root = os.open(working_directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._handles.append(os.open(tag, _STEP | os.O_DIRECTORY, dir_fd=root))
            finally:
                os.close(root)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise errors.PathRefused(f"Job {tag} has no directory here.") from None
            raise errors.PathRefused(f"{top} can't be opened: {error.strerror}.") from None
        self._real_top = os.readlink(b"/proc/self/fd/%d" % self._handles[0])

    def close(self) -> None:
        for handle in self._handles:
            os.close(handle)
        self._handles = []

    def find(self) -> Found:
        while self._names:
            self._step(self._names.pop())
        handle = self._handles[-1]
        return Found(handle, os.fstat(handle))

    def _step(self, name: bytes) -> None:
        if name in (b"", b"."):
            return
        if name == b"..":
            self._up()
            return
        try:
            handle = os.open(name, _STEP, dir_fd=self._handles[-1])
        except OSError as error:
            raise errors.PathRefused(_sentence(name, error)) from None
        if not stat.S_ISLNK(os.fstat(handle).st_mode):
            self._handles.append(handle)
            return
        try:
            target = os.readlink(b"", dir_fd=handle)
        finally:
            os.close(handle)
        self._follow(name, target)

    def _up(self) -> None:
        if not stat.S_ISDIR(os.fstat(self._handles[-1]).st_mode):
            raise errors.PathRefused("A link goes through a file as if it were a directory.")
        if len(self._handles) == 1:
            raise errors.PathRefused("A link leads out of the job's directory.")
        os.close(self._handles.pop())

    def _follow(self, name: bytes, target: bytes) -> None:
        self._links += 1
        if self._links > LINKS_LIMIT:
            raise errors.PathRefused("The path goes through too many links.")
        if target.startswith(b"/"):
            target = self._below_top(name, target)
            while len(self._handles) > 1:
                os.close(self._handles.pop())
        self._names.extend(reversed(target.split(b"/")))

    def _below_top(self, name: bytes, target: bytes) -> bytes:
        for top in (self._top, self._real_top):
            if target == top or target.startswith(top + b"/"):
                return target[len(top) :]
        shown = name.decode("utf-8", "replace")
        raise errors.PathRefused(f"The link {shown!r} leads out of the job's directory.")


def _sentence(name: bytes, error: OSError) -> str:
    shown = name.decode("utf-8", "replace")
    return f"{shown!r}: {error.strerror}."
