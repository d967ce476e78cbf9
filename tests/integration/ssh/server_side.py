"""A whole server side, with workers, on one side of a real sshd, and accounts on the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from controller.models import (
    ClusterLink,
    HpcCluster,
    Kind,
    LinkState,
    Procedure,
    ProcedureState,
)
from controller.services import clusters, host_keys
from ops import processes, sshd
from tests.stack import Stack

from .site import Site


class Portal:
    """What a site's admin does, and sees, of clusters behind servers of `site`."""

    def __init__(self, stack: Stack, site: Site, machine: sshd.Accounts | None = None) -> None:
        self.stack = stack
        self.site = site
        self._machine = machine or site.accounts

    def start_worker(self) -> None:
        """One more worker, where the names of `machine` are known if there is one."""
        around = {"around": self._machine.around} if self._machine is not None else {}
        self.stack.start_worker(**around)

    def holder_pid(self, cluster: HpcCluster) -> int:
        """The worker that holds the link."""
        return int(self.stack.link(cluster).holder.rsplit(".", 2)[1])

    def prefer(self, cluster: HpcCluster, address: str) -> None:
        """Let the next link be tried at this address first."""
        ClusterLink.objects.filter(pk=cluster.pk).update(address=address)

    def has_ended(self, pid: int | None, limit_s: float = 20.0) -> bool:
        """Whether a process ends within the limit."""
        return processes.wait_until(lambda: not Path(f"/proc/{pid}").exists(), limit_s)

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
        if is_confirmed:
            self.pin(cluster)
        return cluster

    def pin(self, cluster: HpcCluster) -> None:
        """Fetch the host keys, by a worker, and confirm all."""
        procedure = host_keys.fetch(cluster)
        self.wait_over(procedure)
        ids = cluster.host_keys.filter(is_offered=True).values_list("pk", flat=True)
        host_keys.confirm(cluster, list(ids))

    def linked(
        self, server: sshd.Sshd, account: sshd.Account, **fields: Any
    ) -> tuple[HpcCluster, Procedure]:
        """A cluster that was bootstrapped and is linked."""
        cluster = self.register(server, account, **fields)
        procedure = clusters.bootstrap(cluster)
        clusters.connect(cluster)
        self.wait_over(procedure, 30.0)
        assert procedure.state == ProcedureState.DONE, procedure.detail
        self.stack.wait_up(cluster)
        return cluster, procedure

    def blocked(self, cluster: HpcCluster) -> ClusterLink:
        """Wait until the link waits for a person."""

        def waits() -> bool:
            link = self.stack.link(cluster)
            return link.state == LinkState.BLOCKED and link.not_before is None

        self.stack.wait(waits, "the link to wait for a person")
        return self.stack.link(cluster)

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
