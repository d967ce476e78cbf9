"""Errors of the cluster client.

ClientError
├── SettingsError         a setting is wrong; the message names it
├── NotStored             a write did not reach the disk (full, quota, stale handle, no right)
├── StoreDamaged          a store can be read by nobody; a person must look
├── Fenced                a newer generation holds the state directory: this daemon must end
├── CommandFailed         a command ended with a status or an output that can't be used
│   ├── CommandTimedOut   it was killed at its time limit; what it did is not known
│   └── EnvironmentUnread there is no login environment yet: nothing may be started
├── PathRefused           a path that leads out of the job's directory, or is not ours
│   └── NoSuchPath         nothing is there
├── UploadDamaged         what came is not what was announced: size or checksum differ
└── InvalidRequest        what was asked for can't be meant (tag, script, resources)

`transient` says whether the same thing may work later; retries read it, never the message.
"""

from __future__ import annotations

import errno


class ClientError(Exception):
    """Base of all errors of the cluster client."""

    code = "client_error"
    transient = False


class SettingsError(ClientError):
    code = "settings"


class NotStored(ClientError):
    """A write did not reach the disk. `reason` is `no_space` or `not_stored`."""

    code = "not_stored"
    transient = True

    def __init__(self, path: str, error: OSError) -> None:
        self.path = path
        self.errno = error.errno or 0
        name = errno.errorcode.get(self.errno, str(self.errno))
        super().__init__(f"Could not write to {path}: {error.strerror or error} ({name}).")

    @property
    def reason(self) -> str:
        return "no_space" if self.errno in (errno.ENOSPC, errno.EDQUOT) else "not_stored"


class StoreDamaged(ClientError):
    code = "store_damaged"


class Fenced(ClientError):
    """A newer daemon took over this state directory."""

    code = "retired"

    def __init__(self, message: str, generation: int = 0) -> None:
        self.generation = generation
        super().__init__(message)


class CommandFailed(ClientError):
    code = "command_failed"
    transient = True


class CommandTimedOut(CommandFailed):
    code = "command_timed_out"


class EnvironmentUnread(CommandFailed):
    code = "environment"


class PathRefused(ClientError):
    code = "path_refused"


class NoSuchPath(PathRefused):
    code = "no_such_path"


class UploadDamaged(ClientError):
    code = "damaged"
    transient = True


class InvalidRequest(ClientError):
    code = "invalid_request"
