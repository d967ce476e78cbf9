"""The Slurm of a run of tests, behind the login node of a tests' site."""

from __future__ import annotations

from pathlib import Path

from ops import slurm_cluster
from tests.integration.ssh.site import Site


class SlurmCluster(slurm_cluster.SlurmCluster[Site]):
    """Its accounts are those of a site that workers log in to."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, Site)
