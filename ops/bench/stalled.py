"""Whether submission suffers while many downloads stand still."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator

from controller import conf
from controller.models import FileTransfer, HpcCluster
from controller.models.transfer import ACTIVE

from . import browser, clusters, places, submission
from .figures import Measured
from .rig import Rig
from .submitting import HELD

STALLED = 20
FILE_MIB = 1024


def measure(rig: Rig, cluster: HpcCluster) -> dict[str, Measured]:
    """The median of submit to SUBMITTED with stalled downloads, over that without, in rounds."""
    rounds, jobs = rig.either(4, 1), rig.either(10, 3)
    job = places.job_of(rig, cluster)
    path = clusters.job_directory(rig, job) / "stalled"
    places.make_sparse(rig, path, FILE_MIB)
    free, held_up = [], []
    _submit_ms(rig, cluster)
    for _ in range(rounds):
        free += [_submit_ms(rig, cluster) for _ in range(jobs)]
        with stalled(rig, browser.url_of(job, path.name)):
            held_up += [_submit_ms(rig, cluster) for _ in range(jobs)]
    path.unlink()
    submission.cancel_all(rig, cluster)
    before, after = statistics.median(free), statistics.median(held_up)
    return {
        "stalled_submit_change": Measured(
            100 * (after / before - 1),
            f"median of submit to SUBMITTED: {before:.0f} ms, with {STALLED} stalled downloads"
            f" {after:.0f} ms; {len(free)} jobs each, {rounds} rounds",
        )
    }


def _submit_ms(rig: Rig, cluster: HpcCluster) -> float:
    begun_at = time.monotonic()
    clusters.wait_accepted(rig, clusters.submit(cluster, HELD))
    return 1000 * (time.monotonic() - begun_at)


@contextlib.contextmanager
def stalled(rig: Rig, url: str) -> Iterator[None]:
    """STALLED browsers that have asked for the file, and read its headers alone."""
    a_user = conf.get().transfers_per_user
    with contextlib.ExitStack() as open_:
        for number in range(STALLED):
            connection, _ = browser.log_in(rig, f"reader-{number // a_user}").open(url)
            open_.callback(connection.close)
        time.sleep(1)  # until every buffer on the way is full
        yield
    _wait_until_carried_out(rig)


def _wait_until_carried_out(rig: Rig) -> None:
    """Let what the browsers gave up come to its end: it is no part of the next round."""
    active = FileTransfer.objects.filter(state__in=ACTIVE)
    clusters.wait(rig, lambda: not active.exists(), "the stalled downloads to end")
