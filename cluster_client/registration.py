"""What a daemon leaves for others to read: registry, pid file, the cause of its death."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time

from . import build, errors, host, registry
from .configuration import Settings
from .filesystem import Filesystem
from .protocol import messages

logger = logging.getLogger(__name__)

PID_FILE = "pid"


class Registration:
    """The entry of one daemon in its state directory."""

    def __init__(self, filesystem: Filesystem, settings: Settings) -> None:
        self._filesystem = filesystem
        self._directory = settings.state_directory
        self._pid_file = settings.pid_file
        pid = os.getpid()
        self.entry = registry.Entry(
            generation=settings.generation,
            host=host.host_name(),
            pid=pid,
            starttime=host.start_time(pid) or 0,
            boot_id=host.boot_id(),
            socket="",
            started_at=time.time(),
            build_hash=build.build_hash(),
            versions=messages.VERSIONS,
        )

    def note_predecessor(self) -> str:
        """The cause of the last daemon's death, noted if that one had no time to."""
        previous = registry.read(self._directory)
        if previous is None:
            return registry.read_last_death(self._directory)
        if previous.is_here():
            cause = f"pid {previous.pid}, generation {previous.generation}: {registry.VANISHED}"
        else:
            cause = f"generation {previous.generation} on {previous.host}: replaced from here."
        _note_last_death(self._filesystem, self._directory, cause)
        return cause

    def publish(self, socket_path: str) -> None:
        """Say that we serve on `socket_path`."""
        self.entry = self.entry._replace(socket=socket_path)
        text = json.dumps(self.entry._asdict(), sort_keys=True) + "\n"
        path = os.path.join(self._directory, registry.REGISTRY)
        self._filesystem.write_durably(path, text.encode())

    def is_published(self) -> bool:
        """Whether the registry names us."""
        return self.entry.is_same_process(registry.read(self._directory))

    def withdraw(self) -> None:
        """Take our entry away, unless another daemon has taken our place."""
        if self.is_published():
            self._filesystem.remove(os.path.join(self._directory, registry.REGISTRY))
        for path in (self._pid_file, os.path.join(self._directory, PID_FILE)):
            self._remove_pid_file(path)

    def note_death(self, cause: str) -> None:
        """Leave the cause of our own end for the next greeting."""
        note_death(self._filesystem, self._directory, self.entry, cause)

    def write_pid_file(self) -> None:
        """Tell people our pid; where another user's file is in the way, in the state directory.

        Several daemons of one account may share the path: the last one to start is in it.
        """
        text = f"{self.entry.pid}\n".encode()
        try:
            _overwrite(self._pid_file, text)
        except OSError as error:
            own = os.path.join(self._directory, PID_FILE)
            logger.warning(
                "pid_file_elsewhere",
                extra={"wanted": self._pid_file, "why": str(error), "path": own},
            )
            with contextlib.suppress(errors.NotStored):  # the log has said the pid already
                self._filesystem.write_durably(own, text)

    def _remove_pid_file(self, path: str) -> None:
        try:
            with open(path, "rb") as file:
                is_ours = file.read(32).strip() == str(self.entry.pid).encode()
            if is_ours and os.stat(path).st_uid == os.geteuid():
                os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            logger.warning("pid_file_kept", extra={"path": path, "why": str(error)})


def note_death(
    filesystem: Filesystem, state_directory: str, entry: registry.Entry, cause: str
) -> None:
    """Leave the cause of the end of `entry` for the next greeting."""
    text = f"pid {entry.pid}, generation {entry.generation}: {cause}"
    _note_last_death(filesystem, state_directory, text)


def _note_last_death(filesystem: Filesystem, state_directory: str, text: str) -> None:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    path = os.path.join(state_directory, registry.LAST_DEATH)
    try:
        filesystem.write_durably(path, f"{at} {text}\n".encode())
    except errors.NotStored as error:
        logger.warning("last_death_not_stored", extra={"why": str(error)})


def _overwrite(path: str, text: bytes) -> None:
    # In a directory like /tmp somebody may have put a link to a file of ours.
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open(path, flags, 0o644)
    try:
        found = os.fstat(handle)
        if found.st_uid != os.geteuid():
            raise PermissionError(f"{path} belongs to uid {found.st_uid}")
        if found.st_nlink != 1:
            raise PermissionError(f"{path} has other names")
        os.ftruncate(handle, 0)
        os.write(handle, text)
    finally:
        os.close(handle)
