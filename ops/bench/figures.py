"""What is measured: names, units and goals; the table and the JSON made of them; pure."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Goal:
    """What a value should be: `comparison` is one of <, <= and >=."""

    comparison: str
    bound: float

    def is_met(self, value: float) -> bool:
        return _COMPARISONS[self.comparison](value, self.bound)

    def __str__(self) -> str:
        return f"{self.comparison} {self.bound:g}"


@dataclass(frozen=True)
class Measured:
    """A value, and in words how it came about: sizes, counts, settings."""

    value: float
    what: str


@dataclass(frozen=True)
class Figure:
    """One line of the table; without a goal it only informs."""

    name: str
    unit: str
    goal: Goal | None = None


class Entry(TypedDict):
    """One figure in the JSON file."""

    value: float
    unit: str
    what: str


FIGURES = (
    Figure("submit_1_vs_sbatch", "ratio"),
    Figure("submit_64_vs_sbatch", "ratio", Goal(">=", 0.7)),
    Figure("end_to_completed_s", "s", Goal("<", 1)),
    Figure("end_to_completed_p99_s", "s", Goal("<", 3)),
    Figure("download_vs_scp", "ratio", Goal(">=", 1.5)),
    Figure("download_vs_tcp", "ratio"),
    Figure("upload_vs_scp", "ratio", Goal(">=", 0.7)),
    Figure("list_10k_ms", "ms", Goal("<=", 100)),
    Figure("rss_growth_mib", "MiB", Goal("<", 32)),
    Figure("ping_p99_ms", "ms", Goal("<", 50)),
    Figure("stalled_submit_change", "%", Goal("<", 20)),
    Figure("idle_cpu_daemon", "% of a core"),
    Figure("idle_cpu_worker", "% of a core", Goal("<", 3)),
    Figure("links_per_worker_rss_mib", "MiB a link"),
)
NAMES = tuple(figure.name for figure in FIGURES)


def entries(measured: Mapping[str, Measured]) -> dict[str, Entry]:
    """The content of the JSON file, in the table's order."""
    return {
        figure.name: {
            "value": round(measured[figure.name].value, 4),
            "unit": figure.unit,
            "what": measured[figure.name].what,
        }
        for figure in FIGURES
        if figure.name in measured
    }


def table(measured: Mapping[str, Measured]) -> str:
    """One line a figure: name, value, unit, goal, whether it is met, and how it was measured."""
    lines = [_line("figure", "value", "unit", "goal", "", "what")]
    for figure in FIGURES:
        if one := measured.get(figure.name):
            goal = figure.goal
            met = "" if goal is None else "met" if goal.is_met(one.value) else "NOT MET"
            value = f"{one.value:.3g}" if abs(one.value) < 100 else f"{one.value:.0f}"
            lines.append(_line(figure.name, value, figure.unit, str(goal or "-"), met, one.what))
    return "\n".join(lines)


def _line(name: str, value: str, unit: str, goal: str, met: str, what: str) -> str:
    return f"{name:<25} {value:>8} {unit:<12} {goal:>7} {met:<8} {what}".rstrip()


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank: the smallest value that `percent` of all do not exceed."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def paired_ratio(ours: Sequence[float], yardstick: Sequence[float]) -> float:
    """The median of ours over the yardstick of the same round, so that drift cancels."""
    return statistics.median(one / other for one, other in zip(ours, yardstick, strict=True))
