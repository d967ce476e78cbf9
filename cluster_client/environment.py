"""The environment of scheduler commands and jobs: built from nothing, as a fresh login gives it."""

from __future__ import annotations

import logging
import os
import pwd
import re
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Callable, Optional

from cluster_client import commands, errors

logger = logging.getLogger(__name__)

_MINIMAL_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
# An inherited SLURM_ARRAY_JOB_ID falsifies the claim; SQUEUE_PARTITION hides jobs from squeue;
# SBATCH_* changes what is submitted. SLURM_CONF says which Slurm it is, and stays.
_REMOVED = re.compile(
    r"(SBATCH|SQUEUE|SACCT|SCANCEL|SRUN|SALLOC|HPC)_.*|PYTHON.*|SLURM_(?!CONF$).*"
    r"|_|SHLVL|PWD|OLDPWD|TERM"
)


@dataclass(frozen=True)
class Account:
    """The cluster account, as the password database knows it."""

    user: str
    home: str
    shell: str


def account() -> Account:
    """Of our uid; one that the database does not know gets what the environment says."""
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        user = os.environ.get("USER", str(os.getuid()))
        return Account(user, os.environ.get("HOME", "/"), "/bin/sh")
    return Account(entry.pw_name, entry.pw_dir, entry.pw_shell or "/bin/sh")


def minimal(who: Account) -> dict[str, str]:
    return {
        "HOME": who.home, "USER": who.user, "LOGNAME": who.user, "SHELL": who.shell,
        "PATH": _MINIMAL_PATH,
    }  # fmt: skip


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """Without the names that would act on scheduler commands or falsify a claim."""
    return {k: v for k, v in environment.items() if not _REMOVED.fullmatch(k)}


def login_environment(
    setup_commands: str, limit_s: float = 10.0, who: Optional[Account] = None
) -> dict[str, str]:
    """What a login shell and the set-up commands make of nothing; minimal, with a warning, if
    they fail or take longer than `limit_s`.

    The commands run in the account's own shell, as in a session of the user. Start-up files may
    print, and find an empty stdin.
    """
    who = who or account()
    marker = f"hpc-{secrets.token_hex(8)}"
    lines = (
        setup_commands,
        f"/usr/bin/printf '\\n%s\\n' {marker}",
        "/usr/bin/env -0",
        f"/usr/bin/printf '%s\\n' {marker}",
    )
    try:
        # A leading "-" makes every shell a login shell, csh too; it is what sshd does.
        # Source: bash(1), INVOCATION; tcsh(1), Argument list processing.
        finished = commands.run(
            ["-" + os.path.basename(who.shell), "-c", "\n".join(filter(None, lines)) + "\n"],
            executable=who.shell,
            environment=minimal(who),
            limit_s=limit_s,
        )
        return scrubbed(_between(finished.stdout, marker))
    except (errors.CommandFailed, ValueError) as error:
        logger.warning(
            "login environment could not be read, a minimal one is used",
            extra={"shell": who.shell, "cause": str(error)},
        )
        return minimal(who)


def _between(text: str, marker: str) -> dict[str, str]:
    parts = text.split(marker + "\n")
    if len(parts) < 3:
        raise ValueError("the login shell or the set-up commands ended before the environment")
    pairs = (item.partition("=") for item in parts[-2].split("\0"))
    environment = {name: value for name, equals, value in pairs if equals and name}
    if "PATH" not in environment:
        raise ValueError("the login environment has no PATH")
    return environment


class LoginEnvironment:
    """The environment, read once on a thread of its own; who needs it earlier waits."""

    def __init__(self, read: Callable[[], dict[str, str]]) -> None:
        self._read = read
        self._value: dict[str, str] = {}
        self._is_ready = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._fill, name="environment", daemon=True).start()

    def _fill(self) -> None:
        try:
            self._value = self._read()
        finally:
            if not self._value:
                self._value = minimal(account())
            self._is_ready.set()

    def for_jobs(self, extra: Mapping[str, str]) -> dict[str, str]:
        """What a job starts with."""
        return {**self._get(), **extra}

    def for_commands(self) -> dict[str, str]:
        """What a scheduler command runs with: its words in English, its times in UTC."""
        return {**self._get(), "LC_ALL": "C", "TZ": "UTC"}

    def _get(self) -> dict[str, str]:
        self._is_ready.wait()
        return self._value
