"""The job's directory on the cluster: made before the submit command, never emptied by it."""

from __future__ import annotations

import grp
import os
from dataclasses import dataclass

from cluster_client import errors, layout
from cluster_client.filesystem import Filesystem


@dataclass(frozen=True)
class JobDirectories:
    """Where jobs live, and with which rights. `group` "": the account's own."""

    fs: Filesystem
    root: str
    umask: int = 0o077
    group: str = ""

    def path(self, tag: str) -> str:
        return os.path.join(self.root, tag)

    @property
    def is_there(self) -> bool:
        """False if the root was never made, or its file system is not mounted."""
        return layout.is_jobs_root(self.root)

    def missing(self) -> errors.NotStored:
        return errors.NotStored(self.root, layout.missing_root(self.root))

    def make_root(self) -> None:
        """Make the root so that it can be told from one whose file system is not mounted."""
        self.fs.make_directory(self.root, 0o777 & ~self.umask)
        self.fs.make_directory(os.path.join(self.root, layout.TRASH))

    def make(self, tag: str, script: bytes, wrapper: bytes) -> str:
        """Make the directory with both files; on a retry they are replaced, nothing else is."""
        directory = self.path(tag)
        control = layout.control_of(directory)
        self._make_own(directory)
        self._make_own(control)
        mode = 0o666 & ~self.umask
        self.fs.write_durably(os.path.join(control, "script"), script, mode)
        self.fs.write_durably(os.path.join(control, "wrapper"), wrapper, mode)
        return directory

    def _make_own(self, directory: str) -> None:
        mode = 0o777 & ~self.umask
        if self.group:
            mode |= 0o2000  # setgid: what the job writes belongs to the group too
        self.fs.make_directory(directory, mode)
        self.fs.set_rights(directory, mode, self._gid())
        if os.lstat(directory).st_uid != os.getuid():
            raise errors.PathRefused(f"{directory} is not owned by this account.")

    def _gid(self) -> int:
        if not self.group:
            return -1
        try:
            return grp.getgrnam(self.group).gr_gid
        except KeyError:
            raise errors.SettingsError(
                f"The group {self.group!r} of this cluster does not exist there."
            ) from None
