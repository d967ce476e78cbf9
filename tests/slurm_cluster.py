"""A cluster as people meet it: accounts, a login node behind an sshd, and a Slurm that knows both.

The accounts exist in the mount namespaces of sshd and of Slurm's daemons alone. Those who log in
find SLURM_CONF in their environment, since the site's /etc/profile sets it.
"""

from __future__ import annotations

import subprocess
from functools import cached_property
from pathlib import Path
from typing import Any

from ops import slurm, sshd
from tests.integration.ssh.site import USER, Site

COMMAND_LIMIT_S = 60.0


class SlurmCluster:
    """`slurm` is up once this is made; the login node starts when it is first asked for."""

    def __init__(self, directory: Path) -> None:
        place = directory / "site"
        place.mkdir(mode=0o755, parents=True)
        self.site = Site(place)
        self.slurm = slurm.Slurm(directory / "slurm", accounts=self.site.accounts)
        self.slurm.start()
        setting = f"export SLURM_CONF={self.slurm.layout.slurm_conf}"
        profile = Path("/etc/profile").read_text()
        self.site.accounts.put("profile", f"{profile}\n{setting}\n")
        self._admitted: set[str] = set()

    def close(self) -> list[int]:
        """Stop everything; the processes that could not be ended."""
        self.slurm.stop()
        return self.site.close()

    @cached_property
    def login_node(self) -> sshd.Sshd:
        """The sshd that its users log in at."""
        return self.site.server()

    def account(self, name: str = USER, **fields: Any) -> sshd.Account:
        """An account that may log in with `site.key` and run jobs; the same for the same name."""
        account = self.site.accounts.get(name) or self.site.add_account(name, **fields)
        if name not in self._admitted:
            self.slurm.admit(name)
            self._admitted.add(name)
        return account

    def ssh(self, account: sshd.Account, command: str) -> str:
        """What `command` prints in a fresh login shell, by the ssh of the system."""
        known = self.site.directory / "known_hosts"
        lines = [sshd.public_line(key) for key in self.site.host_keys]
        host = f"[{self.login_node.address}]:{self.login_node.port}"
        known.write_text("".join(f"{host} {line}\n" for line in lines))
        options = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "IdentityFile": self.site.key,
            "UserKnownHostsFile": known,
            "GlobalKnownHostsFile": "none",
        }
        done = subprocess.run(
            [
                *("ssh", "-F", "none", "-p", str(self.login_node.port)),
                *(word for name, value in options.items() for word in ("-o", f"{name}={value}")),
                f"{account.name}@{self.login_node.address}",
                "exec bash -l -s",
            ],
            input=command,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command!r} over ssh ended with {done}"
        return done.stdout
