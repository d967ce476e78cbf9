"""From Django to Slurm and back: worker, link, daemon, sbatch, accounting."""

from __future__ import annotations

from controller.lifecycle import JobStatus
from ops import slurm
from tests.stack import Stack


def test_a_job_goes_from_the_portal_to_slurm_and_back(
    stack: Stack, slurm_server: slurm.Slurm
) -> None:
    stack.start_worker()
    cluster = stack.add_cluster(
        scheduler="slurm", setup_commands=f"export SLURM_CONF={slurm_server.layout.slurm_conf}"
    )
    link = stack.wait_up(cluster)
    assert link.scheduler == "slurm"
    assert "walltime_s" in link.capabilities["resources"]
    good = stack.submit(cluster, walltime_s=600, partition="main")
    bad = stack.submit(cluster, stack.script(status=3))
    assert stack.wait_status(good).status is JobStatus.COMPLETED
    assert good.scheduler_job_id.isdigit()
    assert (stack.wait_status(bad).status, bad.exit_code) == (JobStatus.ERROR, 3)
    assert len(stack.runs()) == 2
    cancelled = stack.submit(cluster, stack.script(seconds=60))
    stack.wait_status(cancelled, JobStatus.RUNNING)
    cancelled.cancel()
    assert stack.wait_status(cancelled).status is JobStatus.CANCELLED
