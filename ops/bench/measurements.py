"""The measurements, in the order of a run; imported once Django is pointed to the rig."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from controller.models import HpcCluster

from . import clusters, ends, idle, submission
from .figures import Measured
from .rig import Rig


@dataclass(frozen=True)
class Measurement:
    """One that yields some of the figures together."""

    figures: Collection[str]
    run: Callable[[Rig, HpcCluster], Mapping[str, Measured]]


MEASUREMENTS = (
    Measurement(("end_to_completed_s", "end_to_completed_p99_s"), ends.measure),
    Measurement(("idle_cpu_daemon", "idle_cpu_worker", "links_per_worker_rss_mib"), idle.measure),
    Measurement(("submit_1_vs_sbatch", "submit_64_vs_sbatch"), submission.measure),
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
