"""A file here that comes whole under its name, or not at all.

Until it is whole its bytes are in a file beside it, `.NAME.XXXXXXXX.part`, which nobody else can
read. What ends the process on purpose (Ctrl-C, SIGTERM, a terminal that goes) takes it away; after
kill -9 it stays, and may be deleted.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from ... import errors
from . import figures, names
from .terminal import WrongUsage

NAME_MOST_BYTES = 200
"""Of the name in that of the temporary file: with what is added it stays below 255."""

FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "your disk quota is used up"}

# No hard links (FAT, some network file systems), or none for this one file.
# Source: https://man7.org/linux/man-pages/man2/link.2.html
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class NotSaved(errors.HpcError):
    """A file could not be written here; nothing of it is left."""

    code = "not_saved"


def destination(given: str | None, path: str, is_forced: bool) -> Path:
    """Where the file of that path is to be saved here. Raises NotSaved, and WrongUsage.

    Its name is the last of the path as it was typed, never one that a cluster tells.
    """
    target = Path(given or ".")
    if target.is_dir():
        name = names.last_of(path)
        if not name:
            raise WrongUsage(
                f"{names.quoted(path)} names no file: say which, or as what to save it."
            )
        target /= name
    elif given is not None and given.endswith("/"):
        raise NotSaved(f"There is no directory {names.quoted(given)}: make it first.")
    if is_forced and target.is_symlink():
        target = target.resolve()  # the link stays, as with cp
    _refuse_taken(target, is_forced)
    return target


class NewFile:
    """Takes the bytes; as a context it leaves nothing behind unless they were kept."""

    def __init__(self, target: Path, is_forced: bool, size_bytes: int) -> None:
        """Raises NotSaved, also if the disk can't take `size_bytes`."""
        self.target = target
        self._is_forced = is_forced
        self._directory = target.parent
        self._written_bytes = 0
        self._hash = hashlib.sha256()
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="hpc-sha256")
        with self._told():
            free_bytes = _free_bytes(self._directory)
            if size_bytes > free_bytes:
                raise NotSaved(
                    f"{names.quoted(target)} needs {figures.size(size_bytes)}, and its disk has"
                    f" {figures.size(free_bytes)} left: nothing was fetched."
                )
            self._descriptor, part = tempfile.mkstemp(
                prefix=f".{_cut(target.name)}.", suffix=".part", dir=self._directory
            )
        self._part = Path(part)

    def write(self, data: bytes) -> None:
        """Add bytes. Raises NotSaved."""
        rest = memoryview(data)
        hashed = self._hasher.submit(self._hash.update, data)  # while the kernel copies
        with self._told():
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        hashed.result()
        self._written_bytes += len(data)

    def keep(self, sha256: str) -> None:
        """Give it its name, once its bytes are on the disk and are those. Raises NotSaved."""
        if self._hash.hexdigest() != sha256:
            raise NotSaved(
                f"{names.quoted(self.target)} is not what the cluster read (its sha256 differs):"
                " fetch it again."
            )
        with self._told():
            os.fchmod(self._descriptor, 0o666 & ~_umask())
            os.fsync(self._descriptor)
            self._rename()
            _sync_directory(self._directory)

    def discard(self) -> None:
        """Take away what is not kept."""
        self._hasher.shutdown()
        with suppress(OSError):
            os.close(self._descriptor)
        with suppress(FileNotFoundError):
            self._part.unlink()

    def _rename(self) -> None:
        if self._is_forced:
            self._part.rename(self.target)
            return
        try:
            self.target.hardlink_to(self._part)  # a rename would take the place of another's file
        except FileExistsError:
            _refuse_taken(self.target, self._is_forced)
            raise
        except OSError as problem:
            if problem.errno not in NO_LINKS:
                raise
            _refuse_taken(self.target, self._is_forced)
            self._part.rename(self.target)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            raise NotSaved(self._sentence(problem)) from problem

    def _sentence(self, problem: OSError) -> str:
        name = names.quoted(self.target)
        if problem.errno == errno.ENOENT:
            return f"There is no directory {names.quoted(self._directory)}: make it first."
        why = FULL.get(problem.errno or 0)
        if why is None:
            return f"{name} can't be written: {problem.strerror}."
        done = figures.size(self._written_bytes)
        return f"{name} can't be written: {why} after {done}; what was written is deleted again."


@contextmanager
def new_file(target: Path, is_forced: bool, size_bytes: int) -> Iterator[NewFile]:
    """A NewFile that is discarded at the end, whatever ends it."""
    with _ended_by_signals():
        file = NewFile(target, is_forced, size_bytes)
        try:
            yield file
        finally:
            file.discard()


def _refuse_taken(target: Path, is_forced: bool) -> None:
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as problem:
        raise NotSaved(f"{names.quoted(target)}: {problem.strerror}.") from problem
    if stat.S_ISDIR(mode):
        raise NotSaved(f"{names.quoted(target)} is a directory: say another name.")
    if not is_forced:
        raise NotSaved(f"{names.quoted(target)} is there already: --force replaces it.")
    if not stat.S_ISREG(mode):
        raise NotSaved(f"{names.quoted(target)} is no regular file: write to stdout (-) instead.")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """What ends the process by default unwinds it here, with the status that a shell would show."""
    kept = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            with suppress(ValueError):  # not the main thread: whoever started it has its own ways
                kept[number] = signal.signal(number, _exit)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _exit(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def _free_bytes(directory: Path) -> float:
    found = os.statvfs(directory)
    # Some file systems of the network tell nothing of their size.
    return found.f_bavail * found.f_frsize if found.f_blocks else math.inf


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _cut(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:NAME_MOST_BYTES])


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as problem:
        if problem.errno not in (errno.EINVAL, errno.EROFS):
            raise  # some network file systems know no fsync of a directory
    finally:
        os.close(handle)
