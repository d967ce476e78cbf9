"""Paths inside a job's directory, walked with directory handles.

Rules:
- A path is relative, without `..`, NUL or over-long names; `.` and doubled slashes say nothing.
- Each step opens one name below the handle before it, without following it (O_PATH, O_NOFOLLOW).
  So nothing that is swapped in meanwhile can lead elsewhere.
- A link is read and its target walked in the same way: `..` goes to the handle before, and never
  above the job's directory; an absolute target must begin with the job's directory.
- What is opened for reading was seen to be a regular file first, and is opened through its handle:
  no FIFO, device or socket is ever opened. Source: open(2), O_PATH; proc(5), /proc/self/fd.
- A directory that its owner moves elsewhere meanwhile is still the one that was found inside.
- Who writes gets the handle of a directory and a name in it; below `.hpc` in the job's directory,
  where our own records are, nobody writes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from . import errors, layout

PATH_LIMIT_BYTES = 4096
NAME_LIMIT_BYTES = 255
LINKS_LIMIT = 40
SHOWN_LIMIT = 400
"""Characters of a path that an error repeats."""
TAG = re.compile(r"[a-z][a-z2-7]{14}")
RECORDS = os.fsencode(layout.CONTROL)
"""Our own directory in a job's."""

_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Found:
    """What a path led to: an O_PATH handle (never of a link) and what it is."""

    handle: int
    status: os.stat_result
    shown: str
    """The path that was asked for, for people."""

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.status.st_mode)

    def open_file(self) -> int:
        """A descriptor to read the file; PathRefused for anything that is none."""
        if not self.is_file:
            raise errors.PathRefused(
                f"{self.shown} is {kind(self.status.st_mode)}, not a regular file, and can't be "
                "read. Name a file."
            )
        return os.open(f"/proc/self/fd/{self.handle}", os.O_RDONLY | os.O_CLOEXEC)

    def open_directory(self) -> int:
        """A descriptor to list the directory; PathRefused for anything that is none."""
        if not self.is_directory:
            raise errors.PathRefused(
                f"{self.shown} is {kind(self.status.st_mode)}, not a directory, and can't be "
                "listed. Name a directory."
            )
        return os.open(f"/proc/self/fd/{self.handle}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@dataclass(frozen=True)
class Place:
    """Where something is to be written: an O_PATH handle of the directory, and a name in it."""

    directory: int
    name: bytes
    shown: str


KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def kind(mode: int) -> str:
    """What a mode is of, in words."""
    return KINDS.get(stat.S_IFMT(mode), "of an unknown type")


@contextlib.contextmanager
def walk(working_directory: str, tag: str, path: str) -> Iterator[Found]:
    """What `path` in the directory of job `tag` leads to; PathRefused says why not."""
    names = split(path)
    with _walker(working_directory, tag) as walker:
        walker.go(names)
        handle = walker.handle
        yield Found(handle, os.fstat(handle), _shown(path) or "The job's directory")


@contextlib.contextmanager
def walk_to_place(working_directory: str, tag: str, path: str) -> Iterator[Place]:
    """The directory and the name that `path` says, to write there; PathRefused says why not."""
    names = split(path)
    if not names:
        raise errors.PathRefused("The path names no file: say where the file is to be written.")
    if path.rpartition("/")[2] in ("", "."):
        raise errors.PathRefused(f"{_shown(path)} names a directory: add the file's name to it.")
    with _walker(working_directory, tag) as walker:
        walker.go(names[:-1])
        if not stat.S_ISDIR(os.fstat(walker.handle).st_mode):
            raise errors.PathRefused(
                f"{_shown(path)} goes through a file as if it were a directory."
            )
        if (*walker.trail, names[-1])[0] == RECORDS:
            raise errors.PathRefused(
                f"{_shown(path)} is in {layout.CONTROL}, where the job's records are: write it to "
                "another place."
            )
        yield Place(walker.handle, names[-1], _shown(path))


@contextlib.contextmanager
def _walker(working_directory: str, tag: str) -> Iterator[_Walker]:
    if not TAG.fullmatch(tag):
        raise errors.PathRefused(f"{tag[:40]!r} is not the tag of a job.")
    walker = _Walker(working_directory, tag)
    try:
        yield walker
    finally:
        walker.close()


def split(path: str) -> list[bytes]:
    """The names in a path that a server asked for."""
    try:
        raw = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise errors.PathRefused("The path holds characters that no file name has.") from None
    if b"\0" in raw:
        raise errors.PathRefused("The path holds a NUL, which no file name has.")
    if len(raw) > PATH_LIMIT_BYTES:
        raise errors.PathRefused(
            f"The path is over {PATH_LIMIT_BYTES} bytes, the most there can be."
        )
    if raw.startswith(b"/"):
        raise errors.PathRefused("The path must be relative to the job's directory.")
    names = [name for name in raw.split(b"/") if name not in (b"", b".")]
    if b".." in names:
        raise errors.PathRefused("The path must not hold '..'.")
    if any(len(name) > NAME_LIMIT_BYTES for name in names):
        raise errors.PathRefused(f"A name in the path is over {NAME_LIMIT_BYTES} bytes.")
    return names


def last_name(path: str) -> bytes:
    """The name that a path ends with; empty for the job's directory itself."""
    return next(reversed(split(path)), b"")


def _shown(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")[:SHOWN_LIMIT]


class _Walker:
    """Stands in one directory (or file) of a job at a time, with the handles of the way there."""

    def __init__(self, working_directory: str, tag: str) -> None:
        self._names: list[bytes] = []
        self._links = 0
        self._handles: list[int] = []
        self.trail: list[bytes] = []
        """The names that led here from the job's directory, links resolved."""
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
                if not layout.is_jobs_root(working_directory):
                    words = layout.missing_root(working_directory).strerror
                    raise errors.PathRefused(f"{working_directory}: {words}.") from None
                raise errors.NoSuchPath(f"Job {tag} has no directory here.") from None
            raise errors.PathRefused(f"{top} can't be opened: {error.strerror}.") from None
        self._real_top = os.readlink(b"/proc/self/fd/%d" % self._handles[0])

    def close(self) -> None:
        for handle in self._handles:
            os.close(handle)
        self._handles = []

    @property
    def handle(self) -> int:
        """Where it stands."""
        return self._handles[-1]

    def go(self, names: list[bytes]) -> None:
        """Step through `names`, and through what links among them say."""
        self._names = names[::-1]
        while self._names:
            self._step(self._names.pop())

    def _step(self, name: bytes) -> None:
        if name in (b"", b"."):
            return
        if name == b"..":
            self._up()
            return
        try:
            handle = os.open(name, _STEP, dir_fd=self._handles[-1])
        except OSError as error:
            raise _refusal(name, error) from None
        if not stat.S_ISLNK(os.fstat(handle).st_mode):
            self._handles.append(handle)
            self.trail.append(name)
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
        self.trail.pop()

    def _follow(self, name: bytes, target: bytes) -> None:
        self._links += 1
        if self._links > LINKS_LIMIT:
            raise errors.PathRefused("The path goes through too many links.")
        if target.startswith(b"/"):
            target = self._below_top(name, target)
            while len(self._handles) > 1:
                os.close(self._handles.pop())
            self.trail.clear()
        self._names.extend(reversed(target.split(b"/")))

    def _below_top(self, name: bytes, target: bytes) -> bytes:
        for top in (self._top, self._real_top):
            if target == top or target.startswith(top + b"/"):
                return target[len(top) :]
        shown = name.decode("utf-8", "replace")
        raise errors.PathRefused(f"The link {shown!r} leads out of the job's directory.")


def _refusal(name: bytes, error: OSError) -> errors.PathRefused:
    shown = name.decode("utf-8", "replace")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return errors.NoSuchPath(f"{shown!r}: {error.strerror}.")
    return errors.PathRefused(f"{shown!r}: {error.strerror}.")
