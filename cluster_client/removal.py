"""Removes a job's directory, by directory handles only, in bounded and resumable slices.

Rules:
- Only a real directory directly below the working root, of our uid, on the root's device.
- It is renamed to .trash/TAG first: from then on nobody else finds it.
- Nothing is followed: no link, no mount point. What can't be removed is listed with the cause.
- Deep trees are cut: a directory below DEPTH_LIMIT is moved up to .trash/TAG.N, so that the number
  of open handles is bounded.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Optional

from cluster_client import errors, layout
from cluster_client.protocol import messages

SLICE_ENTRIES = 2000
SLICE_S = 2.0
DEPTH_LIMIT = 32
REMAINING_LIMIT = 20
TRASH = layout.TRASH

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def _opened(name: str, flags: int, dir_fd: Optional[int] = None) -> Iterator[int]:
    descriptor = os.open(name, flags, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def claim_of(root: str, tag: str) -> Optional[str]:
    """The id that holds the job's claim, "" without a claim, None without a directory."""
    try:
        with (
            _opened(root, os.O_RDONLY | os.O_DIRECTORY) as root_fd,
            _opened(tag, _DIRECTORY, root_fd) as job_fd,
        ):
            return _first_line_of_claim(job_fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise errors.PathRefused(
            f"{os.path.join(root, tag)} is not a job's directory: {error}."
        ) from error


def _first_line_of_claim(job_fd: int) -> str:
    try:
        with (
            _opened(layout.CONTROL, _DIRECTORY, job_fd) as control_fd,
            _opened("claim", os.O_RDONLY | os.O_NOFOLLOW, control_fd) as claim_fd,
        ):
            return os.read(claim_fd, 4096).decode("utf-8", "replace").split("\n")[0]
    except FileNotFoundError:
        return ""


def remove(root: str, tag: str) -> messages.Deleted:
    """Remove one slice of the job's directory. Raises PathRefused, NotStored."""
    try:
        root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise errors.NotStored(root, layout.missing_root(root)) from error
    except OSError as error:
        raise errors.NotStored(root, error) from error
    try:
        trash_fd = _open_trash(root, root_fd)
        try:
            _move_to_trash(root, root_fd, trash_fd, tag)
            return _Slice(tag, trash_fd, os.fstat(root_fd).st_dev).run()
        finally:
            os.close(trash_fd)
    except OSError as error:
        raise errors.NotStored(os.path.join(root, tag), error) from error
    finally:
        os.close(root_fd)


def _open_trash(root: str, root_fd: int) -> int:
    with suppress(FileExistsError):
        os.mkdir(TRASH, 0o700, dir_fd=root_fd)
    try:
        trash_fd = os.open(TRASH, _DIRECTORY, dir_fd=root_fd)
    except OSError as error:
        path = os.path.join(root, TRASH)
        raise errors.PathRefused(f"{path} is not a directory of ours: {error}.") from error
    if os.fstat(trash_fd).st_dev != os.fstat(root_fd).st_dev:
        os.close(trash_fd)
        raise errors.PathRefused(f"{os.path.join(root, TRASH)} is on another file system.")
    return trash_fd


def _move_to_trash(root: str, root_fd: int, trash_fd: int, tag: str) -> None:
    path = os.path.join(root, tag)
    try:
        descriptor = os.open(tag, _DIRECTORY, dir_fd=root_fd)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise errors.PathRefused(f"{path} is not a directory but a link or a file.") from error
        if error.errno != errno.EACCES:
            raise
        descriptor = os.open(tag, os.O_PATH | _DIRECTORY, dir_fd=root_fd)
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.getuid():
            raise errors.PathRefused(f"{path} is not owned by this account.")
        if found.st_dev != os.fstat(root_fd).st_dev:
            raise errors.PathRefused(f"{path} is a mount point.")
    finally:
        os.close(descriptor)
    os.rename(tag, _free_name(trash_fd, tag), src_dir_fd=root_fd, dst_dir_fd=trash_fd)


def _free_name(trash_fd: int, tag: str) -> str:
    names = set(os.listdir(trash_fd))
    if tag not in names:
        return tag
    number = 1
    while f"{tag}.{number}" in names:
        number += 1
    return f"{tag}.{number}"


class _Slice:
    """One bounded piece of work on .trash/TAG and .trash/TAG.N."""

    def __init__(self, tag: str, trash_fd: int, device: int) -> None:
        self._tag = tag
        self._trash_fd = trash_fd
        self._device = device
        self._entries_left = SLICE_ENTRIES
        self._deadline = time.monotonic() + SLICE_S
        self._remaining: list[str] = []

    def run(self) -> messages.Deleted:
        while not self._is_over and (names := self._names()):
            before = len(names), self._entries_left
            for name in names:
                self._remove(self._trash_fd, name, name, 0)
            if (len(self._names()), self._entries_left) == before or self._remaining:
                break
        is_complete = not self._names()
        return messages.Deleted(self._tag, is_complete, tuple(self._remaining[:REMAINING_LIMIT]))

    @property
    def _is_over(self) -> bool:
        return self._entries_left <= 0 or time.monotonic() > self._deadline

    def _names(self) -> list[str]:
        prefix = self._tag + "."
        return [n for n in os.listdir(self._trash_fd) if n == self._tag or n.startswith(prefix)]

    def _remove(self, parent_fd: int, name: str, path: str, depth: int) -> None:
        if self._is_over:
            return
        try:
            found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                os.unlink(name, dir_fd=parent_fd)
                self._entries_left -= 1
            elif found.st_dev != self._device:
                self._keep(path, "a mount point")
            elif depth >= DEPTH_LIMIT:
                free = _free_name(self._trash_fd, self._tag)
                os.rename(name, free, src_dir_fd=parent_fd, dst_dir_fd=self._trash_fd)
            else:
                self._remove_directory(parent_fd, name, path, depth)
        except FileNotFoundError:
            return
        except OSError as error:
            self._keep(path, error.strerror or str(error))

    def _remove_directory(self, parent_fd: int, name: str, path: str, depth: int) -> None:
        descriptor = self._open_directory(parent_fd, name)
        try:
            before = len(self._remaining)
            for child in os.listdir(descriptor):
                if self._is_over:
                    return
                self._remove(descriptor, child, os.path.join(path, child), depth + 1)
            if len(self._remaining) > before or self._is_over:
                return
        finally:
            os.close(descriptor)
        os.rmdir(name, dir_fd=parent_fd)
        self._entries_left -= 1

    def _open_directory(self, parent_fd: int, name: str) -> int:
        """Open a directory to be emptied; one whose owner took his own rights away gets them."""
        with _opened(name, os.O_PATH | _DIRECTORY, parent_fd) as handle:
            found = os.fstat(handle)
            if found.st_dev != self._device:
                raise OSError(errno.EXDEV, "a mount point")
            if found.st_mode & 0o700 != 0o700 and found.st_uid == os.getuid():
                os.chmod(f"/proc/self/fd/{handle}", 0o700)
            return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _keep(self, path: str, cause: str) -> None:
        shown = path.partition("/")[2] or path
        self._remaining.append(f"{shown.encode('utf-8', 'replace').decode()}: {cause}")
