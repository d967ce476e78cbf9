"""How quickly jobs reach the scheduler: through the product, and by a bare loop of `sbatch`."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from django.db.models import Min

from controller.lifecycle import FINAL, JobStatus
from controller.models import HpcCluster, HpcJob, JobEvent
from ops import errors
from ops.stack import CHECKOUT

from . import clusters, figures
from .figures import Measured
from .rig import Rig
from .submitting import HELD

CLIENTS = 64
PROCESSES = 4
LIMIT_S = 120.0
LOOP = """\
mkdir -p yardstick && cd yardstick && cat >job.sh <<'END'
{script}END
begun=$(date +%s%N)
for number in $(seq {count}); do
    sbatch --parsable --output=/dev/null job.sh >/dev/null || exit 1
done
echo $(($(date +%s%N) - begun))
"""


def measure_one(rig: Rig, cluster: HpcCluster) -> dict[str, Measured]:
    """Jobs a second of one client that waits for each, over those of the loop."""
    rounds, jobs = rig.either(5, 1), rig.either(20, 3)
    rate_of_one(rig, cluster, 1)
    loops, ours = [], []
    for _ in range(rounds):
        loops.append(sbatch_rate(rig, jobs))
        ours.append(rate_of_one(rig, cluster, jobs))
    cancel_all(rig, cluster)
    return {
        "submit_1_vs_sbatch": Measured(
            figures.paired_ratio(ours, loops),
            f"1 client, each job SUBMITTED before the next: {_rates(rig, ours, loops)}",
        )
    }


def measure_many(rig: Rig, cluster: HpcCluster) -> dict[str, Measured]:
    """Jobs a second of many clients at once, over those of the loop."""
    rounds, jobs = rig.either(5, 1), rig.either(3 * CLIENTS, CLIENTS)
    loops, ours = [], []
    with clients(cluster) as many:
        many.submit(rig, jobs)  # each client's first submission connects and imports
        for _ in range(rounds):
            loops.append(sbatch_rate(rig, jobs))
            ours.append(many.submit(rig, jobs))
    cancel_all(rig, cluster)
    return {
        "submit_64_vs_sbatch": Measured(
            figures.paired_ratio(ours, loops),
            f"{CLIENTS} clients (threads of {PROCESSES} processes that call services.jobs.submit),"
            f" {jobs} jobs a round until all are SUBMITTED: {_rates(rig, ours, loops)}",
        )
    }


def _rates(rig: Rig, ours: Sequence[float], loops: Sequence[float]) -> str:
    return (
        f"{statistics.median(ours):.1f} jobs/s, a bare sbatch loop"
        f" {statistics.median(loops):.1f} jobs/s, {len(ours)} rounds;"
        f" HPC_SUBMIT_PARALLEL={rig.submit_parallel}"
    )


def sbatch_rate(rig: Rig, count: int) -> float:
    """Jobs a second of a bare loop in one login shell of the same account."""
    told = rig.cluster.ssh(rig.account, LOOP.format(script=HELD, count=count), LIMIT_S)
    return count / (int(told.split()[-1]) / 1e9)


def rate_of_one(rig: Rig, cluster: HpcCluster, count: int) -> float:
    """Jobs a second of one client that waits for each to be SUBMITTED."""
    begun_at = time.monotonic()
    for _ in range(count):
        clusters.wait_accepted(rig, clusters.submit(cluster, HELD))
    return count / (time.monotonic() - begun_at)


@dataclass(frozen=True)
class Clients:
    """The processes that many clients are threads of."""

    processes: Sequence[subprocess.Popen[str]]

    def submit(self, rig: Rig, count: int) -> float:
        """Jobs a second, from the first call of a client to the last job SUBMITTED."""
        for process in self.processes:
            _tell(process, str(count // len(self.processes)))
        answers = [json.loads(_hear(process)) for process in self.processes]
        ids = [pk for answer in answers for pk in answer["ids"]]
        waiting = HpcJob.objects.filter(pk__in=ids, job_status__lt=JobStatus.SUBMITTED)
        clusters.wait(
            rig, lambda: not waiting.exists(), f"{len(ids)} jobs to be SUBMITTED", LIMIT_S
        )
        # The daemon's first word on a job may come before its answer is stored: then it is QUEUED.
        accepted = JobEvent.objects.filter(job__in=ids, status_after__gte=JobStatus.SUBMITTED)
        first = accepted.values("job").annotate(first_at=Min("at"))
        last_at: float = max(first.values_list("first_at", flat=True)).timestamp()
        begun_at: float = min(answer["begun_at"] for answer in answers)
        return len(ids) / (last_at - begun_at)


@contextlib.contextmanager
def clients(cluster: HpcCluster) -> Iterator[Clients]:
    """CLIENTS clients, connected; they end with their standard input."""
    argv = [sys.executable, "-m", "ops.bench.submitting", str(cluster.pk)]
    argv.append(str(CLIENTS // PROCESSES))
    with contextlib.ExitStack() as running:
        started = []
        for _ in range(PROCESSES):
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=CHECKOUT,
                env=os.environ,
            )
            running.enter_context(process)  # closes its pipes and waits for it
            started.append(process)
        for process in started:
            _hear(process)
        yield Clients(started)


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise errors.OpsError("A process of the clients has ended: its words are above.")
    return line


def cancel_all(rig: Rig, cluster: HpcCluster) -> None:
    """Cancel what waits in the queue, and wait until the product knows: others measure next."""
    # There: the account is not known elsewhere.
    rig.cluster.ssh(rig.account, f"scancel --user={rig.account.name}")
    left = HpcJob.objects.filter(cluster=cluster).exclude(job_status__in=[s.value for s in FINAL])
    clusters.wait(rig, lambda: not left.exists(), "the cancelled jobs to end", LIMIT_S, 0.5)
