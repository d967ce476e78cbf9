"""The environment of scheduler commands and jobs, built from nothing, and the limits of jobs: as a
fresh login gives them."""

from __future__ import annotations

import logging
import os
import pwd
import random
import re
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Callable, Optional

from cluster_client import commands, errors, limits

logger = logging.getLogger(__name__)

_MINIMAL_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
# An inherited SLURM_ARRAY_JOB_ID falsifies the claim; SQUEUE_PARTITION hides jobs from squeue;
# SBATCH_* changes what is submitted. SLURM_CONF says which Slurm it is, and stays.
_REMOVED = re.compile(
    r"(SBATCH|SQUEUE|SACCT|SCANCEL|SRUN|SALLOC|HPC)_.*|PYTHON.*|SLURM_(?!CONF$).*"
    r"|_|SHLVL|PWD|OLDPWD|TERM"
)


_WORDS = 500
"""How much of what the shell said is told, in characters."""
_RETRY_CAP_S = 300.0
_REFRESH_S = 3600.0


@dataclass(frozen=True)
class Account:
    """The cluster account, as the password database knows it."""

    user: str
    home: str
    shell: str


@dataclass(frozen=True)
class Login:
    """What a fresh login has; limits that are not known are not named."""

    environment: Mapping[str, str]
    soft_limits: limits.Limits = field(default_factory=dict)


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


def fresh_login(setup_commands: str, limit_s: float, who: Optional[Account] = None) -> Login:
    """What a login shell and the set-up commands make of nothing.

    The commands run in the account's own shell, as in a session of the user. Start-up files may
    print, and find an empty stdin. Raises EnvironmentUnread with the shell's words if they end
    before the environment can be read, or take longer than `limit_s`.
    """
    who = who or account()
    marker = f"hpc-{secrets.token_hex(8)}"
    lines = (
        setup_commands,
        f"/usr/bin/printf '\\n%s\\n' {marker}",
        "/usr/bin/env -0",
        f"/usr/bin/printf '%s\\n' {marker}",
        # Start-up files set some of them; and sbatch takes those of whoever calls it along.
        "/usr/bin/env cat /proc/self/limits",
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
    except errors.CommandFailed as error:
        raise errors.EnvironmentUnread(_sentence(who, str(error))) from error
    try:
        return _between(finished.stdout, marker)
    except ValueError as error:
        cause = f"{error} (exit status {finished.returncode})"
        said = finished.stderr.strip()[-_WORDS:]
        raise errors.EnvironmentUnread(_sentence(who, cause, said)) from error


def _sentence(who: Account, cause: str, said: str = "") -> str:
    text = f"The login environment of {who.user} ({who.shell}) could not be read: {cause}"
    text = text.rstrip(".") + "."
    return f"{text} The shell said: {said}" if said else text


def _between(text: str, marker: str) -> Login:
    parts = text.split(marker + "\n")
    if len(parts) < 4:
        raise ValueError("the login shell or the set-up commands ended before the environment")
    pairs = (item.partition("=") for item in parts[-3].split("\0"))
    environment = {name: value for name, equals, value in pairs if equals and name}
    if "PATH" not in environment:
        raise ValueError("the login environment has no PATH")
    return Login(scrubbed(environment), limits.parse(parts[-2]))


class LoginEnvironment:
    """The environment, read on a thread of its own, and again now and then; who needs it before
    the first reading waits, for `wait_s` at most.

    A reading that fails is tried again with a back-off. Until one succeeds there is `fallback`;
    without one, whoever asks is told why (EnvironmentUnread): a job without its modules runs
    wrongly, and a command without them may ask another scheduler. One that was read stays good
    when a later reading fails.
    """

    def __init__(
        self,
        read: Callable[[], Login],
        fallback: Optional[Callable[[], Login]] = None,
        *,
        retry_s: float = 60.0,
        wait_s: float = 30.0,
    ) -> None:
        self._read = read
        self._fallback = fallback
        self._retry_s = retry_s
        self._wait_s = wait_s
        self._value: Optional[Login] = None
        self._failure = ""
        self._is_tried = threading.Event()
        self._is_stopped = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._keep, name="environment", daemon=True).start()

    def stop(self) -> None:
        self._is_stopped.set()

    @property
    def state(self) -> str:
        """For people: how the environment stands."""
        if not self._is_tried.is_set():
            return "being read"
        if not self._failure:
            return "read"
        have = "an older one" if self._value else "a minimal one" if self._fallback else "none"
        return f"{have} is used: {self._failure}"

    @property
    def is_tried(self) -> bool:
        """True once the first reading has ended, well or not: nobody waits any more."""
        return self._is_tried.is_set()

    def for_jobs(self, extra: Mapping[str, str]) -> dict[str, str]:
        """What a job starts with."""
        return {**self._get().environment, **extra}

    def for_commands(self) -> dict[str, str]:
        """What a scheduler command runs with: its words in English, its times in UTC."""
        return {**self._get().environment, "LC_ALL": "C", "TZ": "UTC"}

    def limits_for_jobs(self) -> limits.Limits:
        """The soft limits that what is submitted takes along."""
        return self._get().soft_limits

    def _get(self) -> Login:
        if not self._is_tried.wait(self._wait_s):
            raise errors.EnvironmentUnread(
                f"The login environment is still being read, for more than {self._wait_s:g} s."
            )
        if self._value:
            return self._value
        if self._fallback is not None:
            return self._fallback()
        raise errors.EnvironmentUnread(self._failure)

    def _keep(self) -> None:
        pause_s = self._retry_s
        while True:
            self._fill()
            self._is_tried.set()
            if self._failure:
                wait_s = pause_s * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, no secret
                pause_s = min(2 * pause_s, max(self._retry_s, _RETRY_CAP_S))
            else:
                wait_s, pause_s = _REFRESH_S, self._retry_s
            if self._is_stopped.wait(wait_s):
                return

    def _fill(self) -> None:
        value, failure = self._value, ""
        try:
            value = self._read()
        except errors.EnvironmentUnread as error:
            failure = str(error)
        except Exception:  # whoever waits must be told
            logger.exception("login environment failed")
            failure = "The client failed; its log on the cluster says why."
        if failure and failure != self._failure:
            logger.warning("login environment not read", extra={"cause": failure})
        elif self._failure and not failure:
            logger.info("login environment read")
        self._value, self._failure = value, failure
