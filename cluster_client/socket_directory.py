"""The private, node-local directory that holds the daemon's socket.

Rules:
- It is `/tmp/hpc-<uid>-<12 hex>/`, mode 0700; the hex is drawn from the state directory's path.
- `lstat` must show a directory, ours and private. Anything else there is somebody's trap or
  mistake: then a fresh random name is used, which only the registry tells.
- A flock on the directory, held for the daemon's life, makes two starts on this host one after
  the other, and keeps systemd-tmpfiles from cleaning the directory away.
  Source: https://systemd.io/TEMPORARY_DIRECTORIES/ (BSD file locks). /tmp is local, homes may
  not be; no lock is ever taken there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import socket
import stat
from dataclasses import dataclass
from typing import Optional

from . import errors

BASE = "/tmp"  # noqa: S108 - the directory inside is private and checked
PATH_LIMIT_BYTES = 100
SOCKET = "s"


@dataclass(frozen=True)
class SocketDirectory:
    """A checked directory and the descriptor that holds its lock."""

    path: str
    lock: int

    def close(self) -> None:
        """Let go of the lock; the directory stays."""
        os.close(self.lock)

    def remove(self) -> None:
        """Remove the socket and the directory, where they are still ours to remove."""
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.path, SOCKET))
        with contextlib.suppress(OSError):
            os.rmdir(self.path)
        self.close()


def usual_path(state_directory: str) -> str:
    """Where the socket directory of this state directory is, if nothing is in the way."""
    digest = hashlib.sha256(os.fsencode(state_directory)).hexdigest()[:12]
    return os.path.join(BASE, f"hpc-{os.geteuid()}-{digest}")


def acquire(state_directory: str) -> Optional[SocketDirectory]:
    """The directory, locked; None if another process holds it."""
    path = usual_path(state_directory)
    for _ in range(10):
        if not _make(path):
            return fresh()
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # its last holder removed it just now
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        if _is_same(path, handle):
            return SocketDirectory(path, handle)
        os.close(handle)
    return None


def adopt(path: str, lock: int) -> SocketDirectory:
    """The directory that the starter locked for us."""
    if not _is_same(path, lock):
        raise errors.SettingsError(f"{path} was replaced while the daemon started.")
    os.set_inheritable(lock, False)
    return SocketDirectory(path, lock)


def fresh() -> SocketDirectory:
    """A new directory of random name."""
    path = os.path.join(BASE, f"hpc-{os.geteuid()}-{secrets.token_hex(6)}")
    os.mkdir(path, 0o700)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return SocketDirectory(path, handle)


def listen(directory: SocketDirectory) -> tuple[socket.socket, str, int]:
    """A listening socket in `directory`, its path and its inode."""
    path = os.path.join(directory.path, SOCKET)
    if len(os.fsencode(path)) > PATH_LIMIT_BYTES:
        raise errors.SettingsError(f"The socket's path {path} is over {PATH_LIMIT_BYTES} bytes.")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(64)
        return listener, path, os.lstat(path).st_ino
    except OSError:
        listener.close()
        raise


def is_inode(path: str, inode: int) -> bool:
    """Whether `path` is still the file that had `inode`."""
    try:
        return os.lstat(path).st_ino == inode
    except OSError:
        return False


def _make(path: str) -> bool:
    with contextlib.suppress(FileExistsError):  # judged below
        os.mkdir(path, 0o700)
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return True
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return is_ours and not found.st_mode & 0o077


def _is_same(path: str, handle: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(handle))
    except OSError:
        return False
