"""Runs on the cluster, by the Python that the client will have: looks, puts it there, goes back.

    python -E -c THIS look DIRECTORY NAME SHA256
    python -E -c THIS put DIRECTORY NAME SHA256 STUB KEPT... <archive
    python -E -c THIS use DIRECTORY NAME

Answers with one line of JSON. A file gets its name only when it is whole and on the disk, by
`link`, which never overwrites. The archive before it stays, and so do KEPT and what any daemon in
`state/` runs from: a portal beside this one may have brought another, and the daemon of one
starts its helpers from its archive for as long as it lives.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from typing import Any, BinaryIO, Callable, Optional

STUB = "client.py"
CURRENT = "current"
OPEN_TO_ALL = "open_to_all"
PACKAGE = "__init__.py"
STUB_MARK = "HPC-CLIENT-STUB"
HOUR_S = 3600
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)

Answer = dict[str, Any]


def look(directory: str, name: str, sha256: str) -> Answer:
    """What is in the directory now."""
    if is_open_to_all(directory):
        return {"status": "failed", "code": OPEN_TO_ALL, "detail": directory}
    current, previous = [*names(directory), "", ""][:2]
    return {
        "kind": kind_of(directory),
        "current": current,
        "previous": previous,
        "archives": sorted(archives(directory)),
        "is_there": is_whole(os.path.join(directory, name), sha256),
        "python": list(sys.version_info[:3]),
        "executable": sys.executable,
    }


def is_open_to_all(directory: str) -> bool:
    """Whether any user can put a file in the place of one of ours; a group is the site's affair."""
    try:
        mode = os.stat(directory).st_mode
    except FileNotFoundError:
        return False
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


def kind_of(directory: str) -> str:
    """Whose client.py is there."""
    stub = os.path.join(directory, STUB)
    if not os.path.lexists(stub):
        return "none"
    with open(stub, "rb") as file:
        text = file.read(1 << 16).decode("utf-8", "replace")
    is_ours = STUB_MARK in text and not os.path.exists(os.path.join(directory, PACKAGE))
    return "archive" if is_ours else "by_hand"


def put(directory: str, name: str, sha256: str, stub: str, *kept: str) -> Answer:
    """Put the archive of stdin there, make it the current one, and write the stub."""
    if kind_of(directory) == "by_hand":
        return {"status": "failed", "code": "by_hand", "detail": "client.py there is not ours"}
    os.umask(0o077)
    make_directory(directory)
    target = os.path.join(directory, name)
    if not is_whole(target, sha256):
        if os.path.lexists(target):  # a disk has lost a part of it
            os.rename(target, f"{target}.damaged-{os.getpid()}")
        received = write(target, sys.stdin.buffer, sha256)
        if received:
            return received
    before = [one for one in names(directory) if one != name][:1]
    replace(os.path.join(directory, CURRENT), "\n".join([name, *before]) + "\n")
    replace(os.path.join(directory, STUB), stub)
    clear_away(directory, {name, *before, *kept, *running(directory)})
    return {"status": "put"}


def use(directory: str, name: str) -> Answer:
    """Make an archive that is there the current one."""
    if not os.path.isfile(os.path.join(directory, name)):
        return {"status": "failed", "code": "ENOENT", "detail": f"{name} is not there"}
    before = [one for one in names(directory) if one != name][:1]
    replace(os.path.join(directory, CURRENT), "\n".join([name, *before]) + "\n")
    return {"status": "used"}


def clear_away(directory: str, kept: set[str]) -> None:
    """Remove what has been of no use for an hour: other archives, and what installers left that
    were killed.

    A younger one may be another portal's, which is about to make it current.
    """
    for one in os.listdir(directory):
        if is_ours(one) and one not in kept:
            path = os.path.join(directory, one)
            with contextlib.suppress(FileNotFoundError):
                if time.time() - os.lstat(path).st_mtime > HOUR_S:
                    os.unlink(path)


def is_ours(name: str) -> bool:
    """Whether a file is one of those that come and go with the client's versions."""
    is_left = name.endswith(".new") or ".damaged-" in name
    return is_archive(name) or (is_left and name.startswith((f"{STUB}.", f"{CURRENT}.", "client-")))


def is_archive(name: str) -> bool:
    return name.startswith("client-") and name.endswith(".pyz")


def archives(directory: str) -> set[str]:
    """The names of our archives there."""
    try:
        found = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {one for one in found if is_archive(one)}


def running(directory: str) -> Iterator[str]:
    """The archives of the daemons that have said that they serve, on any host."""
    state = os.path.join(directory, "state")
    for key in os.listdir(state) if os.path.isdir(state) else ():
        path = os.path.join(state, key, "registry")
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError), open(path) as file:
            yield "client-{}.pyz".format(json.load(file)["build_hash"])


def make_directory(directory: str) -> None:
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    for path in reversed(missing):
        os.mkdir(path, 0o700)


def write(target: str, source: BinaryIO, sha256: str) -> Optional[Answer]:
    """Write a new file; what is wrong with it, if anything."""
    temporary = temporary_name(target)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            digest = hashlib.sha256()
            while data := source.read(1 << 16):
                digest.update(data)
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256 or not is_whole(temporary, sha256):
            return {"status": "failed", "code": "damaged", "detail": "it came damaged"}
        publish(temporary, target)
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)
    sync_directory(os.path.dirname(target))
    return None


def temporary_name(path: str) -> str:
    """One that nobody else has, nor on another host of the same file system."""
    return f"{path}.{os.getpid()}-{os.urandom(4).hex()}.new"


def publish(temporary: str, target: str) -> None:
    """Give a file its name."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        return  # another installer was first; its name says that it is the same
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        os.rename(temporary, target)  # some file systems have no links


def replace(path: str, text: str) -> None:
    """Write a small file of ours in one step, unless it is as wanted."""
    try:
        with open(path) as file:
            if file.read() == text:
                return
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
    temporary = temporary_name(path)
    try:
        with open(temporary, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)
    sync_directory(os.path.dirname(path))


def sync_directory(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_whole(path: str, sha256: str) -> bool:
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest() == sha256
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise


def names(directory: str) -> list[str]:
    """The current archive and the one before it."""
    try:
        with open(os.path.join(directory, CURRENT)) as file:
            return [os.path.basename(line.strip()) for line in file if line.strip()]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return []
        raise


COMMANDS: dict[str, Callable[..., Answer]] = {"look": look, "put": put, "use": use}


def main(arguments: list[str]) -> None:
    try:
        command, *rest = arguments
        answer = COMMANDS[command](*rest)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "EIO")
        place = error.filename or arguments[1]
        detail = f"{place}: {error.strerror}"
        answer = {"status": "failed", "code": code, "detail": detail}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
