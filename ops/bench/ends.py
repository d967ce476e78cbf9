"""How soon a job's end is known: from its script's last act to COMPLETED in the database."""

from __future__ import annotations

import statistics
import time

from controller.lifecycle import JobStatus
from controller.models import HpcCluster, HpcJob

from . import clusters, figures
from .figures import Measured
from .rig import Rig

SCRIPT = "#!/bin/sh\nsleep {sleep_s}\ndate +%s.%N\n"
PACE_S = 0.5
LIMIT_S = 60.0


def measure(rig: Rig, cluster: HpcCluster) -> dict[str, Measured]:
    """The delays of jobs that end one after the other, about two a second, on default settings."""
    count = rig.either(100, 5)
    submitted = []
    next_at = time.monotonic()
    for number in range(count):
        # Ends keep no step with anything that looks for them.
        script = SCRIPT.format(sleep_s=round(0.3 + number * 0.37 % 1.0, 2))
        submitted.append(clusters.submit(cluster, script))
        next_at += PACE_S
        time.sleep(max(0.0, next_at - time.monotonic()))
    delays = [_delay_s(rig, job) for job in submitted]
    what = f"{count} jobs, one each {PACE_S:g} s; HPC_POLL_INTERVAL_S at its default"
    return {
        "end_to_completed_s": Measured(statistics.median(delays), f"median of {what}"),
        "end_to_completed_p99_s": Measured(
            figures.percentile(delays, 99), f"of the same; worst {max(delays):.2f} s"
        ),
    }


def _delay_s(rig: Rig, job: HpcJob) -> float:
    clusters.wait_status(rig, job, JobStatus.COMPLETED, LIMIT_S)
    ended_at = float((clusters.job_directory(rig, job) / "stdout.log").read_text())
    # The first: what the accounting tells later is an event of the same status.
    known_at = job.events.filter(status_after=JobStatus.COMPLETED).earliest("pk").at
    return known_at.timestamp() - ended_at
