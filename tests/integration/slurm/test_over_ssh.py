"""What needs Slurm, and a login node that is reached over SSH."""

from __future__ import annotations

from tests.slurm_cluster import SlurmCluster


def test_an_account_of_the_login_node_runs_jobs_under_its_own_uid(
    slurm_cluster: SlurmCluster,
) -> None:
    ada = slurm_cluster.account()
    slurm_cluster.ssh(ada, "sbatch --wait --output=who --wrap='id -un; id -u; pwd'")
    assert (ada.home / "who").read_text().split() == [ada.name, str(ada.uid), str(ada.home)]
