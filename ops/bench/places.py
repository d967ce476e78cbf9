"""Files in the directory of a job that has run: made there, or copied by scp."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from pathlib import Path

from controller.lifecycle import JobStatus
from controller.models import HpcCluster, HpcJob
from ops import errors

from . import clusters
from .rig import Rig

MIB = 1 << 20
SCP_LIMIT_S = 120.0


def job_of(rig: Rig, cluster: HpcCluster) -> HpcJob:
    """The first job of the cluster that has completed; a new one if there is none."""
    done = HpcJob.objects.filter(cluster=cluster, job_status=JobStatus.COMPLETED).first()
    if done is None:
        done = clusters.submit(cluster, "#!/bin/sh\ntrue\n")
        clusters.wait_status(rig, done, JobStatus.COMPLETED)
        done.refresh_from_db()
    return done


def make_full(rig: Rig, path: Path, size_mib: int) -> None:
    """A file that really holds so much, and is in the page cache."""
    piece = secrets.token_bytes(MIB)
    with path.open("wb") as file:
        for _ in range(size_mib):
            file.write(piece)
    settle(rig, path)


def make_sparse(rig: Rig, path: Path, size_mib: int) -> None:
    """A file of that size that holds nothing."""
    with path.open("wb") as file:
        file.truncate(size_mib * MIB)
    settle(rig, path)


def make_many(rig: Rig, directory: Path, count: int) -> None:
    """A directory of small files, named as results of a run are."""
    directory.mkdir()
    for number in range(count):
        (directory / f"result_{number:05}.dat").write_text(f"{number}\n")
    settle(rig, directory)


def settle(rig: Rig, path: Path) -> None:
    """Give it to the account; what has to go to the disk goes there now."""
    rig.cluster.site.give(rig.account, path)
    os.sync()


def scp_s(rig: Rig, source: str | Path, target: str | Path) -> float:
    """How long scp takes, with its login, by the same sshd."""
    begun_at = time.monotonic()
    done = subprocess.run(
        ["scp", "-q", *rig.cluster.options(), str(source), str(target)],
        capture_output=True,
        text=True,
        timeout=SCP_LIMIT_S,
        check=False,
    )
    if done.returncode != 0:
        raise errors.OpsError(f"scp of {source} to {target} failed: {done.stderr.strip()}")
    return time.monotonic() - begun_at


def remote(rig: Rig, path: Path) -> str:
    """A path on the login node, as scp wants it."""
    return f"{rig.cluster.destination(rig.account)}:{path}"
