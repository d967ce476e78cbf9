"""A whole server side, with workers, on one side of a real sshd, and accounts on the other."""

from __future__ import annotations

from typing import Any

from controller.models import HpcCluster, Kind, Procedure
from controller.services import clusters, host_keys
from ops import sshd
from tests.stack import Stack

from .site import Site


class Portal:
    """What a site's admin does, and sees, of clusters behind servers of `site`."""

    def __init__(self, stack: Stack, site: Site) -> None:
        self.stack = stack
        self.site = site
        self.servers: dict[int, sshd.Sshd] = {}

    def register(
        self, server: sshd.Sshd, account: sshd.Account, *, is_confirmed: bool = True, **fields: Any
    ) -> HpcCluster:
        """A cluster with the site's key, its host keys confirmed; no link is wanted yet."""
        cluster = clusters.register(
            **{
                "name": account.name,
                "host_name": server.address,
                "port": server.port,
                "carrier": "ssh",
                "username": account.name,
                "key": self.site.key.read_text(),
                "client_path": str(account.home / "client"),
                "python": "/usr/bin/python3",
                **fields,
            }
        )
        self.servers[cluster.pk] = server
        if is_confirmed:
            self.pin(cluster)
        return cluster

    def pin(self, cluster: HpcCluster) -> None:
        """Fetch the host keys, by a worker, and confirm all."""
        procedure = host_keys.fetch(cluster)
        self.wait_over(procedure)
        ids = cluster.host_keys.filter(is_offered=True).values_list("pk", flat=True)
        host_keys.confirm(cluster, list(ids))

    def wait_over(self, procedure: Procedure, limit_s: float = 20.0) -> Procedure:
        """Wait until the procedure has ended."""

        def is_over() -> bool:
            procedure.refresh_from_db()
            return not procedure.is_active

        self.stack.wait(is_over, f"{procedure} to end", limit_s)
        return procedure

    def procedures(self, cluster: HpcCluster) -> list[Procedure]:
        """The bootstraps, oldest first."""
        return list(Procedure.objects.filter(cluster=cluster, kind=Kind.BOOTSTRAP).order_by("pk"))


def told(procedure: Procedure) -> dict[str, str]:
    """The steps and how each ended."""
    return {step.name: step.outcome for step in procedure.steps.all()}
