"""`client.py selftest`: whether this account on this host has what a daemon needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from typing import Callable

from . import account, build, configuration, errors, host, socket_directory, sources
from .configuration import Settings
from .filesystem import Filesystem

KEY = ("selftest", 0)
BASH_LIMIT_S = 10.0


def main() -> int:
    """Print one line a check; 0 if all are good."""
    path = sources.client_path()
    version = ".".join(map(str, sys.version_info[:3]))
    sys.stdout.write(f"client {build.VERSION} in {path}, Python {version} ({sys.executable})\n")
    try:
        settings = configuration.load(path, configuration.StartDocument(*KEY, 1, {}))
    except errors.ClientError as error:
        sys.stdout.write(f"FAILED settings: {error}\n")
        return 1
    failed = 0
    for name, check in CHECKS:
        try:
            words = check(settings)
        except (errors.ClientError, OSError, subprocess.SubprocessError, ImportError) as error:
            failed += 1
            sys.stdout.write(f"FAILED {name}: {error}\n")
        else:
            sys.stdout.write(f"ok     {name}: {words}\n")
    return 1 if failed else 0


def _websockets(_settings: Settings) -> str:
    import websockets.version  # a missing package is what this looks for

    version: str = websockets.version.version
    if not version.startswith("15.0."):
        raise errors.SettingsError(
            f"websockets {version} is installed, 15.0.x is needed: "
            f"pip install -r {os.path.join(sources.client_path(), 'requirements.txt')}"
        )
    return version


def _user(settings: Settings) -> str:
    account.check_user(settings.allow_root)
    return f"uid {os.geteuid()}"


def _host(_settings: Settings) -> str:
    if host.start_time(os.getpid()) is None or not host.boot_id():
        raise errors.SettingsError("/proc does not tell start times and the boot id.")
    return host.host_name()


def _bash(_settings: Settings) -> str:
    path = shutil.which("bash") or "/bin/bash"
    done = subprocess.run(
        [path, "-p", "-c", 'echo "$BASH_VERSION"'],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=BASH_LIMIT_S,
        check=True,
    )
    return done.stdout.decode("ascii", "replace").strip()


def _state(settings: Settings) -> str:
    return _try_write(os.path.dirname(settings.state_directory))


def _jobs(settings: Settings) -> str:
    return _try_write(settings.job_working_directory)


def _log(settings: Settings) -> str:
    return _try_write(settings.log_directory)


def _try_write(directory: str) -> str:
    account.make_directory(directory)
    with tempfile.TemporaryDirectory(prefix=".selftest-", dir=directory) as scratch:
        Filesystem().write_durably(os.path.join(scratch, "file"), b"x")
    return directory


def _socket(settings: Settings) -> str:
    directory = socket_directory.acquire(os.path.join(settings.state_directory, str(os.getpid())))
    if directory is None:
        raise errors.SettingsError("The socket's directory is locked by another process.")
    try:
        listener, path, _ = socket_directory.listen(directory)
        listener.close()
    finally:
        directory.remove()
    return path


CHECKS: tuple[tuple[str, Callable[[Settings], str]], ...] = (
    ("websockets", _websockets),
    ("user", _user),
    ("host", _host),
    ("bash", _bash),
    ("state directory", _state),
    ("job directory", _jobs),
    ("log directory", _log),
    ("socket", _socket),
)
