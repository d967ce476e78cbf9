"""All file access of store, fence, hints and job directories; tests replace it by a double.

"Written" means written, flushed to the disk and closed without an error: on NFS and Lustre a
quota may speak only at fsync or close. Whatever a write raises becomes errors.NotStored.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from typing import Optional

from cluster_client import errors


@contextlib.contextmanager
def _storing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise errors.NotStored(path, error) from error


class AppendFile:
    """A file that only grows; one writer."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def append(self, data: bytes) -> None:
        """Write all of `data` and flush it to the disk, or raise NotStored."""
        with _storing(self.path):
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fsync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with _storing(self.path):
                os.close(descriptor)


class Filesystem:
    """The real file system."""

    def make_directory(self, path: str, mode: int = 0o700) -> None:
        """Make `path` and its parents; an existing directory is fine."""
        with _storing(path):
            os.makedirs(path, mode=mode, exist_ok=True)

    def set_rights(self, path: str, mode: int, gid: int = -1) -> None:
        """Give the directory `path` exactly `mode`, whatever our umask, and the group `gid`."""
        with _storing(path):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if gid >= 0:
                    os.fchown(descriptor, -1, gid)
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def create_append(self, path: str, first: bytes) -> AppendFile:
        """A new file that holds `first`, put in place of any `path` by rename."""
        temporary = self._temporary(path)
        with _storing(path):
            descriptor = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600
            )
        file = AppendFile(path, descriptor)
        try:
            file.append(first)
            self._rename(temporary, path)
        except errors.NotStored:
            self._discard(temporary, file)
            raise
        return file

    def write_durably(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """Replace `path` as a whole: temporary name, fsync, close, rename, fsync of the directory.

        `mode` is given exactly, whatever our umask.
        """
        temporary = self._temporary(path)
        with _storing(path):
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        file = AppendFile(path, descriptor)
        try:
            with _storing(path):
                os.fchmod(descriptor, mode)
            file.append(data)
            file.close()
            self._rename(temporary, path)
        except errors.NotStored:
            self._discard(temporary, file)
            raise

    def read(self, path: str, limit_bytes: int = -1) -> Optional[bytes]:
        """The contents, or None if there is no such file. Other OSErrors are raised: unknown."""
        try:
            with open(path, "rb") as file:
                return file.read(limit_bytes)
        except FileNotFoundError:
            return None

    def listdir(self, path: str, limit: int = 100_000) -> list[str]:
        """Names only, without stat; [] if there is no such directory."""
        names: list[str] = []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    names.append(entry.name)
                    if len(names) >= limit:
                        break
        except FileNotFoundError:
            pass
        return names

    def remove(self, path: str) -> None:
        """Remove a file; one that is gone is fine."""
        with _storing(path), contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def remove_directory(self, path: str) -> None:
        """Remove a directory of plain files as far as it can be done; what is left does no harm."""
        with contextlib.suppress(OSError):
            for name in os.listdir(path):
                os.unlink(os.path.join(path, name))
            os.rmdir(path)

    def _rename(self, temporary: str, path: str) -> None:
        with _storing(path):
            os.rename(temporary, path)
            descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _discard(self, temporary: str, file: AppendFile) -> None:
        """Clean up after a failed write; the failure itself is what the caller must hear."""
        with contextlib.suppress(errors.NotStored):
            file.close()
        with contextlib.suppress(OSError):
            os.unlink(temporary)

    @staticmethod
    def _temporary(path: str) -> str:
        # A random name: over NFS one's own O_EXCL create may fail with EEXIST after a retried call.
        return f"{path}.{uuid.uuid4().hex[:12]}.tmp"
