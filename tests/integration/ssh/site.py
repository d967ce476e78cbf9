"""The site of a run of tests, and how a worker logs in there."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from ops import site, sshd
from ops.site import HOST_KEY_TYPES, PASSWORD, USER
from workers.links import host_keys, ssh, ssh_carrier, ssh_errors

__all__ = ["HOST_KEY_TYPES", "NARROW", "PASSPHRASE", "PASSWORD", "USER", "CountingGate", "Site"]

PASSPHRASE = " correct horse 'battery' ä! "
NARROW = {
    "MaxSessions": "1",
    "AllowTcpForwarding": "no",
    "DisableForwarding": "yes",
    "PermitTTY": "no",
}
"""All that a site may forbid and still be served."""


class Site(site.Site):
    """A site with logins of its own."""

    def pins(self, *keys: Path, address: str = "") -> frozenset[host_keys.HostKey]:
        """The confirmed host keys."""
        lines = [sshd.public_line(key) for key in keys or self.host_keys]
        return frozenset(host_keys.from_line(line, address) for line in lines)

    def login(self, server: sshd.Sshd, user: str = USER, **fields: object) -> ssh.Login:
        """A login with the site's key unless `fields` say otherwise."""
        wanted: dict[str, object] = {"pins": self.pins(), **fields}
        if not {"key", "password"} & wanted.keys():
            wanted["key"] = self.key.read_text()
        return ssh.Login(server.address, user, server.port, **wanted)  # type: ignore[arg-type]

    def carrier(
        self, server: sshd.Sshd, user: str = USER, **options: object
    ) -> ssh_carrier.SshCarrier:
        """A carrier that logs in with the site's key."""
        return ssh_carrier.SshCarrier(self.login(server, user), **options)  # type: ignore[arg-type]


class CountingGate:
    """Gives these answers, and keeps what it is told."""

    def __init__(self, *answers: float, takes_s: float = 0.0) -> None:
        self.answers = list(answers)
        self.heard: list[str] = []
        self._takes_s = takes_s

    def ask(self) -> float:
        time.sleep(self._takes_s)
        return self.answers.pop(0)

    def told(self, problem: ssh_errors.LoginError | None) -> None:
        self.heard.append("good" if problem is None else problem.code)

    def revoked(self, problem: ssh_errors.LoginError) -> None:
        self.heard.append(f"revoked: {problem.code}")


@contextlib.contextmanager
def frozen(server: sshd.Sshd) -> Iterator[None]:
    """All processes of a server stopped, as behind a cut wire."""
    pids = sshd.family(server)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
