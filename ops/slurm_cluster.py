"""A cluster as people meet it: accounts, a login node behind an sshd, and a Slurm that knows both.

The accounts exist in the mount namespaces of sshd and of Slurm's daemons alone. Those who log in
find SLURM_CONF in their environment, since the site's /etc/profile sets it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from ops import errors, slurm, sshd
from ops.site import USER, Site

COMMAND_LIMIT_S = 60.0

SiteT = TypeVar("SiteT", bound=Site)


class SlurmCluster(Generic[SiteT]):
    """`slurm` is up once this is made; the login node starts when it is first asked for.

    `options` are the login node's own, for its sshd.
    """

    def __init__(
        self,
        directory: Path,
        make_site: Callable[[Path], SiteT],
        options: Mapping[str, str] | None = None,
    ) -> None:
        place = directory / "site"
        place.mkdir(mode=0o755, parents=True)
        self.site = make_site(place)
        self._options = dict(options or {})
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
        return self.site.server(**self._options)

    def account(self, name: str = USER, **fields: Any) -> sshd.Account:
        """An account that may log in with `site.key` and run jobs; the same for the same name."""
        account = self.site.accounts.get(name) or self.site.add_account(name, **fields)
        if name not in self._admitted:
            self.slurm.admit(name)
            self._admitted.add(name)
        return account

    def ssh(self, account: sshd.Account, command: str, limit_s: float = COMMAND_LIMIT_S) -> str:
        """What `command` prints in a fresh login shell, by the ssh of the system."""
        done = subprocess.run(
            ["ssh", *self.options(), self.destination(account), "exec bash -l -s"],
            input=command,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        if done.returncode != 0:
            raise errors.OpsError(f"{command!r} over ssh ended with {done}")
        return done.stdout

    def destination(self, account: sshd.Account) -> str:
        """The account on the login node, as ssh and scp want it."""
        return f"{account.name}@{self.login_node.address}"

    def options(self) -> list[str]:
        """What ssh and scp of the system need to log in there."""
        known = self.site.directory / "known_hosts"
        lines = [sshd.public_line(key) for key in self.site.host_keys]
        host = f"[{self.login_node.address}]:{self.login_node.port}"
        known.write_text("".join(f"{host} {line}\n" for line in lines))
        options = {
            "BatchMode": "yes",
            "GlobalKnownHostsFile": "none",
            "IdentitiesOnly": "yes",
            "IdentityFile": self.site.key,
            "Port": self.login_node.port,
            "UserKnownHostsFile": known,
        }
        return ["-F", "none", *(w for n, v in options.items() for w in ("-o", f"{n}={v}"))]
