"""What this account may do here: run at all, and write its directories."""

from __future__ import annotations

import os

from . import errors


def check_user(allow_root: bool) -> None:
    """Refuse to run as root, unless that was asked for."""
    if os.geteuid() == 0 and not allow_root:
        raise errors.SettingsError(
            "The client does not run as root (uid 0): jobs would run as root too. "
            "Use another account, or set HPC_ALLOW_ROOT=1 if that is meant."
        )


def make_directory(path: str, mode: int = 0o700) -> None:
    """Make `path` and its parents, private unless told; SettingsError if it can't be used."""
    try:
        os.makedirs(path, mode=mode, exist_ok=True)
        is_usable = os.access(path, os.R_OK | os.W_OK | os.X_OK)
    except OSError as error:
        raise errors.SettingsError(f"{path} can't be made: {error.strerror}.") from None
    if not is_usable:
        raise errors.SettingsError(f"{path} can't be read and written by this user.")
