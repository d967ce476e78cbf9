"""Where settings come from: the environment and the site's file; light, because `dial` reads both.

Nothing else in the client reads `os.environ` for settings.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from . import errors

PREFIX = "HPC_"
STATE_DIRECTORY = "HPC_STATE_DIRECTORY"
SITE_FILE_LIMIT_BYTES = 1 << 20

LIBRARIES = "LD_LIBRARY_PATH"
"""Where a Python that `module load` provides finds its libraries: it would not start without."""
KEPT_VARIABLES = ("HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "LC_ALL", "TZ", LIBRARIES)
"""What a daemon keeps of its starter's environment, besides the client's own settings.

It keeps them for itself: commands and jobs get theirs from a login shell (environment.py).
"""


def client_path() -> str:
    """The directory of client.py, or of the zipapp that holds this package."""
    path = os.path.dirname(os.path.abspath(__file__))
    while not os.path.exists(path):  # inside an archive
        path = os.path.dirname(path)
    return path if os.path.isdir(path) else os.path.dirname(path)


def program() -> str:
    """What a Python is told to run to get this client: client.py or the zipapp."""
    package = os.path.dirname(os.path.abspath(__file__))
    if os.path.isdir(package):
        return os.path.join(package, "client.py")
    while not os.path.exists(package):
        package = os.path.dirname(package)
    return package


def parse_key(text: str) -> tuple[str, int]:
    """`<instance>.<cluster id>` taken apart; SettingsError if it is none."""
    instance, _, number = text.rpartition(".")
    letters = set("abcdefghijklmnopqrstuvwxyz0123456789-")
    is_number = number.isascii() and number.isdigit() and len(number) <= 18
    if not instance or not is_number or len(text) > 100 or not set(instance) <= letters:
        raise errors.SettingsError(
            f"{text[:120]!r} is no key: expected <instance>.<cluster id>, like portal.1."
        )
    return instance, int(number)


def environment() -> dict[str, str]:
    """The HPC_* variables that are set."""
    return {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}


def kept_environment(names: tuple[str, ...]) -> dict[str, str]:
    """The environment of a daemon: nothing but `names` and what every program needs.

    With the local carrier the starter is a worker, whose variables may hold secrets.
    """
    wanted = (*KEPT_VARIABLES, *names)
    return {name: os.environ[name] for name in wanted if name in os.environ}


def site_file(path: str) -> dict[str, Any]:
    """The HPC_* values that `<client path>/settings/settings.py` assigns; {} without that file."""
    name = os.path.join(path, "settings", "settings.py")
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise errors.SettingsError(f"{name} can't be read: {error.strerror}.") from None
    try:
        _check_owner(name, os.fstat(handle))
        source = os.read(handle, SITE_FILE_LIMIT_BYTES)
    finally:
        os.close(handle)
    return _assigned(name, source)


def state_root(path: str) -> str:
    """Where the state directories of all keys are."""
    value = os.environ.get(STATE_DIRECTORY) or site_file(path).get(STATE_DIRECTORY)
    if value is None:
        return os.path.join(path, "state")
    return absolute(STATE_DIRECTORY, value)


def absolute(name: str, value: object) -> str:
    """`value` of setting `name` as an absolute path without surprises."""
    if not isinstance(value, str) or "\0" in value or not os.path.isabs(value):
        raise errors.SettingsError(f"{name} must be an absolute path, not {value!r}.")
    return os.path.normpath(value)


def _check_owner(name: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise errors.SettingsError(f"{name} is not a regular file.")
    if found.st_uid not in (os.geteuid(), 0):
        raise errors.SettingsError(
            f"{name} belongs to uid {found.st_uid} and is not trusted: "
            f"make it yours (chown) or remove it."
        )
    is_group_writable = found.st_mode & stat.S_IWGRP and not _is_private_group(found.st_gid)
    if found.st_mode & stat.S_IWOTH or is_group_writable:
        raise errors.SettingsError(
            f"{name} can be written by others and is not trusted: chmod go-w {name}"
        )


def _is_private_group(gid: int) -> bool:
    # Where each user has a group of their own, the default umask is 0002 and a clone is
    # writable by that group, which has no other member.
    import grp
    import pwd

    try:
        group = grp.getgrgid(gid)
        user = pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    is_ours = gid == user.pw_gid and group.gr_name == user.pw_name
    return is_ours and not set(group.gr_mem) - {user.pw_name}


def _assigned(name: str, source: bytes) -> dict[str, Any]:
    values: dict[str, Any] = {"__file__": name, "__name__": "settings"}
    try:
        exec(compile(source, name, "exec"), values)  # noqa: S102 - the account's own file
    except Exception as error:  # noqa: BLE001 - whatever that file raises is told the same way
        raise errors.SettingsError(
            f"{name} can't be read: {type(error).__name__}: {error}"
        ) from None
    return {key: value for key, value in values.items() if key.startswith(PREFIX)}
