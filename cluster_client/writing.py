"""A file's bytes on their way in: written beside its place under another name, then put there.

Rules:
- Everything is done by the handle of the directory that the path led to (confinement.py), so that
  nothing that is swapped in meanwhile is written to.
- What is at the place now must be a regular file, whose mode is kept, or nothing. A link there is
  refused, not followed and not replaced: whoever means its target names that.
- The file is in its place only once all came, size and sha256 are as announced, and it was synced.
  Else no trace is left; of a process that was killed one stays, which a later one removes.
- Two at once into one place never mix: each has a name of its own, and the last to end is there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Optional, Union

from . import confinement, errors
from .protocol import messages

PREFIX = ".hpc-put-"
TEMPORARY = re.compile(re.escape(PREFIX) + "[0-9a-f]{16}")
LEFT_AFTER_S = 86400.0
"""A temporary file that nobody has written to for so long was left by a process that is gone."""
LOOK_LIMIT = 10_000
"""Names of a directory that are looked at for such files."""
NAMES_TRIED = 3
SYNC_BYTES = 64 << 20
"""Synced while more comes, so that the last sync, for which the other end waits, is a short one."""

Data = Union[bytes, bytearray, memoryview]


class Upload:
    """One file under way. Used by one thread; `abort` unless `finish` was called."""

    def __init__(self, root: str, message: messages.Put) -> None:
        """Open the temporary file. Raises PathRefused, NotStored, InvalidRequest."""
        if message.size_bytes < 0:
            raise errors.InvalidRequest("The size of the file is negative.")
        self._size_bytes = message.size_bytes
        self._received = 0
        self._digest = hashlib.sha256()
        self._descriptor = -1
        self._hasher = ThreadPoolExecutor(1)
        self._syncer = ThreadPoolExecutor(1)
        self._syncing: Future[None] = Future()
        self._syncing.set_result(None)
        self._unsynced = 0
        with confinement.walk_to_place(root, message.tag, message.path) as place:
            self._shown = place.shown
            self._name = place.name
            self._directory = _open_directory(place)
            self._temporary = ""
        try:
            self._prepare()
        except BaseException:
            self.abort()
            raise

    def _prepare(self) -> None:
        self._replaced = self._look_at_place()
        remove_leftovers(self._directory)
        self._check_room()
        self._open_temporary()

    def _open_temporary(self) -> None:
        try:
            self._descriptor, self._temporary = _create(self._directory)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise errors.NotStored(self._shown, error) from None
            raise errors.PathRefused(
                f"{self._shown} can't be written: {error.strerror}. Choose a directory where "
                "the cluster account may write."
            ) from None

    def write(self, data: Data) -> None:
        """Add bytes. Raises NotStored, UploadDamaged for more than was announced."""
        self._received += len(data)
        if self._received > self._size_bytes:
            raise errors.UploadDamaged(
                f"More than the {self._size_bytes} bytes that were announced came for "
                f"{self._shown}. Nothing was changed: upload it again."
            )
        hashed: Future[None] = self._hasher.submit(self._digest.update, data)
        with self._storing():
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
            self._sync_behind(len(data))
        hashed.result()

    def _sync_behind(self, written: int) -> None:
        """Have what was written so far synced while more comes; raises what the last time failed
        with."""
        self._unsynced += written
        if self._unsynced >= SYNC_BYTES and self._syncing.done():
            self._syncing.result()
            self._unsynced = 0
            self._syncing = self._syncer.submit(os.fdatasync, self._descriptor)

    def finish(self, message: messages.Finish) -> messages.Stored:
        """Put the file in its place. Raises UploadDamaged, NotStored, PathRefused; then no trace
        is left."""
        try:
            self._check(message)
            etag = self._seal()
            self._look_at_place()
            self._rename()
        finally:
            self.abort()
        return messages.Stored(size_bytes=self._received, etag=etag)

    def abort(self) -> None:
        """Remove what there is, if it was not put in its place."""
        self._hasher.shutdown()
        self._syncer.shutdown()
        with contextlib.suppress(OSError):
            self._close()
        if self._temporary:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._directory)
            self._temporary = ""
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def _check(self, message: messages.Finish) -> None:
        wanted = self._size_bytes, message.sha256
        came = self._received, self._digest.hexdigest()
        if wanted != came or message.bytes_sent != self._received:
            what = "size" if message.bytes_sent != self._received else "checksum"
            raise errors.UploadDamaged(
                f"{self._shown} came damaged ({what}: {came[0]} of {wanted[0]} bytes came, "
                f"{message.bytes_sent} were sent). Nothing was changed: upload it again."
            )

    def _seal(self) -> str:
        """Give the file its mode and its bytes a place on the disk; its etag."""
        with self._storing():
            mode = 0o666 & ~_umask()
            if self._replaced is not None:
                mode = _take_group(self._descriptor, self._replaced)
            os.fchmod(self._descriptor, mode)
            self._syncing.result()
            os.fsync(self._descriptor)
            etag = etag_of(os.fstat(self._descriptor))
            self._close()  # over NFS the quota may speak here only
            return etag

    def _rename(self) -> None:
        with self._storing():
            os.rename(
                self._temporary,
                self._name,
                src_dir_fd=self._directory,
                dst_dir_fd=self._directory,
            )
            self._temporary = ""
            _sync_directory(self._directory)

    def _look_at_place(self) -> Optional[os.stat_result]:
        """The file that is there now, or None. Raises PathRefused for anything else."""
        try:
            found = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise errors.PathRefused(f"{self._shown}: {error.strerror}.") from None
        if not stat.S_ISREG(found.st_mode):
            raise errors.PathRefused(
                f"{self._shown} is {confinement.kind(found.st_mode)}, not a regular file, and is "
                "not replaced. Upload to another name."
            )
        return found

    def _check_room(self) -> None:
        """Refuse at once what can't fit. A quota speaks only when it is written."""
        found = os.fstatvfs(self._directory)
        free = found.f_bavail * found.f_frsize
        if found.f_blocks and free < self._size_bytes:  # some file systems do not tell
            problem = OSError(
                errno.ENOSPC, f"{self._size_bytes} bytes are needed, {free} are free there"
            )
            raise errors.NotStored(self._shown, problem)

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    @contextlib.contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise errors.NotStored(self._shown, error) from None


def etag_of(status: os.stat_result) -> str:
    """What changes when a file is replaced or written to."""
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def remove_leftovers(directory: int) -> None:
    """Remove what killed processes left in `directory`; a bounded look, and never an error."""
    before = time.time() - LEFT_AFTER_S
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for _, entry in zip(range(LOOK_LIMIT), entries):
            if TEMPORARY.fullmatch(entry.name):
                _remove_if_old(directory, entry.name, before)


def _remove_if_old(directory: int, name: str, before: float) -> None:
    with contextlib.suppress(OSError):
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode) and found.st_mtime < before:
            os.unlink(name, dir_fd=directory)


def _open_directory(place: confinement.Place) -> int:
    path = f"/proc/self/fd/{place.directory}"
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise errors.PathRefused(
            f"The directory of {place.shown} can't be opened: {error.strerror}."
        ) from None


def _create(directory: int) -> tuple[int, str]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    for left in reversed(range(NAMES_TRIED)):
        name = PREFIX + secrets.token_hex(8)
        try:
            return os.open(name, flags, 0o600, dir_fd=directory), name
        except FileExistsError:  # over NFS also one's own, after a call that was repeated
            if not left:
                raise
    raise AssertionError("unreachable")


def _take_group(descriptor: int, replaced: os.stat_result) -> int:
    """Give a file the group of the one that it replaces; the mode that it then may have."""
    mode = stat.S_IMODE(replaced.st_mode) & 0o777
    try:
        if os.fstat(descriptor).st_gid != replaced.st_gid:
            os.fchown(descriptor, -1, replaced.st_gid)
    except OSError:  # not one of ours: its rights are not another group's
        return mode & ~stat.S_IRWXG
    return mode


def _sync_directory(directory: int) -> None:
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not every file system can
            raise


def _umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
