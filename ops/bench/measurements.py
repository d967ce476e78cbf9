"""The measurements, in the order of a run; imported once Django is pointed to the rig."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from controller.models import HpcCluster

from . import clusters, ends, idle, memory, pings, stalled, submission, transfers
from .figures import Measured
from .rig import Rig


@dataclass(frozen=True)
class Measurement:
    """One that yields some of the figures together."""

    figures: Collection[str]
    run: Callable[[Rig, HpcCluster], Mapping[str, Measured]]


MEASUREMENTS = (
    Measurement(("end_to_completed_s", "end_to_completed_p99_s"), ends.measure),
    Measurement(("download_vs_scp", "download_vs_tcp"), transfers.downloads),
    Measurement(("upload_vs_scp",), transfers.uploads),
    Measurement(("list_10k_ms",), transfers.listing),
    Measurement(("rss_growth_mib",), memory.measure),
    Measurement(("ping_p99_ms",), pings.measure),
    Measurement(("stalled_submit_change",), stalled.measure),
    Measurement(("submit_1_vs_sbatch",), submission.measure_one),
    Measurement(("submit_64_vs_sbatch",), submission.measure_many),
    Measurement(("idle_cpu_daemon", "idle_cpu_worker", "links_per_worker_rss_mib"), idle.measure),
)


def run(rig: Rig, wanted: Collection[str], say: Callable[[str], None]) -> dict[str, Measured]:
    """Measure what yields any of the `wanted` figures; returns these."""
    cluster = clusters.linked(rig, "bench")
    found: dict[str, Measured] = {}
    for one in MEASUREMENTS:
        if names := [name for name in one.figures if name in wanted]:
            say(f"Measuring {', '.join(names)}.")
            found.update(one.run(rig, cluster))
    return {name: found[name] for name in found if name in wanted}
