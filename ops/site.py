"""A site for one run: accounts, key pairs, and servers with options of their own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from ops import sshd

PASSWORD = " geheim ' \\ $x ü! "
HOST_KEY_TYPES = ("ed25519", "ecdsa", "rsa")
USER = "ada"

SESSION_END = """\
[ "$PAM_TYPE" = close_session ] && [ -e {directory}/$PAM_USER ] || exit 0
exec /usr/bin/python3 -I {directory}/kill.py {directory}/$PAM_USER
"""
KILL = """\
import os, pathlib, sys

def started_at(entry):
    return int((entry / "stat").read_bytes().rpartition(b")")[2].split()[19])

home = pathlib.Path(sys.argv[1]).read_bytes()
now = started_at(pathlib.Path("/proc/self"))
for entry in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        if home in (entry / "cmdline").read_bytes() and started_at(entry) < now:
            os.kill(int(entry.name), 9)
    except OSError:
        pass
"""
"""By the home's path on the command line: an ordinary user's accounts are all that user."""


class Site:
    """Makes and keeps what costs time: keys, and servers that several may share."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ended_at_log_out = directory / "ended-at-log-out"
        self._ended_at_log_out.mkdir()
        self.accounts = sshd.Accounts(
            directory / "accounts",
            f"{sshd.PAM_RULES}session optional pam_exec.so quiet /bin/sh {self._session_end()}\n",
        )
        self.host_keys = [
            sshd.make_key(directory / f"host-{kind}", kind, bits=2048 if kind == "rsa" else 0)
            for kind in HOST_KEY_TYPES
        ]
        self._user_keys: dict[tuple[str, str, str], Path] = {}
        self._shared: dict[tuple[tuple[str, str], ...], sshd.Sshd] = {}
        self._servers: list[sshd.Sshd] = []
        self.key = self.user_key("ed25519")
        self.add_account(USER, password=PASSWORD)

    def close(self) -> list[int]:
        """Stop everything; the processes that could not be ended."""
        for server in self._servers:
            server.stop()
        left = self.accounts.end_processes()
        for uid in self.accounts.uids():
            for path in Path("/tmp").glob(f"hpc-{uid}-*"):  # where daemons have their sockets
                shutil.rmtree(path)
        return left

    def add_account(
        self, name: str, shell: str = "/bin/bash", home: str = "", **fields: object
    ) -> sshd.Account:
        """An account that the site's key opens."""
        place = self.directory / "home" / (home or name)
        authorized = [sshd.public_line(self.key)]
        made = sshd.Account(name, place, authorized=authorized, shell=shell, **fields)  # type: ignore[arg-type]
        return self.accounts.add(made)

    def end_at_log_out(self, account: sshd.Account) -> None:
        """Let the host kill at each log-out what the account's sessions have left running."""
        (self._ended_at_log_out / account.name).write_text(str(account.home))

    def _session_end(self) -> Path:
        """What PAM runs at the end of each session, as systemd-logind does with
        KillUserProcesses."""
        script = self.directory / "session-end"
        script.write_text(SESSION_END.format(directory=self._ended_at_log_out))
        (self._ended_at_log_out / "kill.py").write_text(KILL)
        return script

    def give(self, account: sshd.Account, path: Path) -> None:
        """Make `path` and all below it belong to the account."""
        if self.accounts.is_root:
            for one in (path, *path.rglob("*")):
                os.chown(one, account.uid, account.uid, follow_symlinks=False)

    def user_key(self, kind: str, form: str = "", passphrase: str = "") -> Path:
        """The user's key of that kind, in that format."""
        wanted, plain = (kind, form, passphrase), (kind, "", "")
        path = self.directory / f"user-{kind}-{form}-{len(self._user_keys)}"
        if wanted not in self._user_keys and wanted == plain:
            self._user_keys[plain] = sshd.make_key(path, kind, bits=2048 if kind == "rsa" else 0)
        elif wanted not in self._user_keys:
            made = sshd.convert_key(self.user_key(kind), path, passphrase, form)
            self._user_keys[wanted] = made
        return self._user_keys[wanted]

    def server(self, **options: str) -> sshd.Sshd:
        """A running server with these options, shared by all who ask for the same."""
        wanted = tuple(sorted(options.items()))
        if wanted not in self._shared:
            self._shared[wanted] = self.new_server(options)
        return self._shared[wanted]

    def new_server(
        self,
        options: Mapping[str, str] | None = None,
        *,
        keys: Iterable[Path] | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
        accounts: sshd.Accounts | None = None,
        host_name: str = "",
    ) -> sshd.Sshd:
        """A running server of the caller's own, who may stop it."""
        made = sshd.Sshd(
            self.directory / f"sshd-{len(self._servers)}",
            accounts or self.accounts,
            list(keys or self.host_keys),
            options,
            address=address,
            port=port,
            host_name=host_name,
        )
        made.start()
        self._servers.append(made)
        return made
