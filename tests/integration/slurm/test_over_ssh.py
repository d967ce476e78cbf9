"""From Django over SSH to Slurm and back: worker, login, daemon, sbatch, accounting."""

from __future__ import annotations

from controller.lifecycle import JobStatus
from controller.models import HpcCluster, HpcJob
from controller.services import clusters
from ops import processes, sshd
from tests.integration.ssh.server_side import Portal
from tests.slurm_cluster import SlurmCluster
from tests.stack import Stack

PROFILE = """\
export FROM_PROFILE='two words'
ulimit -S -s 4096
ulimit -S -n 500
"""
PROBE = """\
#!/bin/bash
#SBATCH --job-name=probe
id; umask; ulimit -S -a; ulimit -H -a; pwd; readlink /proc/self/fd/0
differ='SLURM_(JOB_?ID|TASK_PID|JOB_NAME)|SSH_(CLIENT|CONNECTION)|_|SHLVL|PWD|OLDPWD'
env | grep -vE "^($differ)=" | sort
echo end
"""


def test_a_job_goes_from_the_portal_over_ssh_to_slurm_and_back(
    stack: Stack, slurm_cluster: SlurmCluster
) -> None:
    ada = slurm_cluster.account()
    (ada.home / ".bash_profile").write_text(PROFILE)
    cluster = _connect(stack, slurm_cluster, ada)
    probe = stack.submit(cluster, PROBE, walltime_s=240, partition="main,debug")
    bad = stack.submit(cluster, "#!/bin/sh\nexit 3\n")
    running = stack.submit(cluster, "#!/bin/sh\nsleep 300\n")
    held = stack.submit(cluster, "#!/bin/sh\n#SBATCH --hold\ntrue\n")
    assert stack.wait_status(probe).status is JobStatus.COMPLETED, probe.job_details
    assert (probe.name, probe.scheduler_job_id.isdigit()) == ("probe", True)
    assert (stack.wait_status(bad).status, bad.exit_code) == (JobStatus.ERROR, 3)
    stack.wait_status(running, JobStatus.RUNNING)
    stack.wait_status(held, JobStatus.QUEUED)
    for job in (running, held):
        job.cancel()
    for job in (running, held):
        assert stack.wait_status(job).status is JobStatus.CANCELLED
    _compare_with_sbatch_by_hand(slurm_cluster, ada, probe)


def _connect(stack: Stack, slurm_cluster: SlurmCluster, account: sshd.Account) -> HpcCluster:
    stack.start_worker()
    portal = Portal(stack, slurm_cluster.site)
    cluster = portal.register(
        slurm_cluster.login_node, account, scheduler="slurm", umask="0027", python=""
    )
    clusters.connect(cluster)
    link = stack.wait_up(cluster)
    assert link.scheduler == "slurm"
    assert "walltime_s" in link.capabilities["resources"]
    assert link.capabilities["partitions"] == ["main", "debug"]
    return cluster


def _compare_with_sbatch_by_hand(
    slurm_cluster: SlurmCluster, account: sshd.Account, probe: HpcJob
) -> None:
    """Its environment, umask and limits are those of the same script, submitted by hand."""
    directory = account.home / "client" / "jobs" / probe.tag
    by_hand = directory / "by-hand"
    options = f"--time=4 --partition=main,debug --output={by_hand}"
    slurm_cluster.ssh(account, f"umask 027; cd {directory} && sbatch {options} .hpc/script")
    processes.wait_until(lambda: by_hand.exists() and "end\n" in by_hand.read_text(), 20)
    told = (directory / "stdout.log").read_text()
    assert told == by_hand.read_text()
    assert "FROM_PROFILE=two words\n" in told
    assert "stack size                  (kbytes, -s) 4096\n" in told
