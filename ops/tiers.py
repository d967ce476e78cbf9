"""Runs the tiers of tests, a few side by side, and says how long each took.

Most tests wait more than they compute: side by side they keep the processors busy.
What a tier prints is kept in a file and shown once it has ended, so that no two are mixed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
REPORTS = CHECKOUT / "tests" / "artefacts"
SIDE_BY_SIDE = 3
FAILURE_LINES = 25
NOT_HERE = "not_here"
"""The property of a report that says in a sentence what this machine could not be used for."""


@dataclass(frozen=True)
class Tier:
    """One run of pytest."""

    name: str
    arguments: tuple[str, ...]
    database: str = "sqlite"
    is_parallel: bool = False


@dataclass(frozen=True)
class Running:
    """A tier that was started, and when, by the monotonic clock."""

    tier: Tier
    process: subprocess.Popen[bytes]
    report: Path
    output: Path
    started_at: float


@dataclass(frozen=True)
class Outcome:
    """What came of one tier; `failures` name each failed test with the end of its report."""

    status: int
    passed: int
    failed: int
    not_here: tuple[str, ...]
    failures: tuple[str, ...]


SSH, SLURM = "tests/integration/ssh", "tests/integration/slurm"
"""Each starts servers for a whole run, and is apart so that they start once."""

ON_SLURM = ("tests/acceptance/test_browser.py", "tests/acceptance/test_clusters_at_scale.py")
"""They use the Slurm that is up for the others."""


def _without(*paths: str) -> tuple[str, ...]:
    return tuple(f"--ignore={path}" for path in paths)


TIERS = (
    Tier("slurm", (SLURM, *ON_SLURM)),
    Tier("integration", ("tests/integration", *_without(SSH, SLURM)), is_parallel=True),
    Tier("acceptance", ("tests/acceptance", *_without(*ON_SLURM))),
    Tier("ssh", (SSH,)),
    Tier(
        "database",
        ("-m", "database", "tests/unit", "tests/integration", *_without(SSH, SLURM)),
        "postgresql",
        True,
    ),
    Tier("unit", ("tests/unit",)),
)
"""In the order of their start; those that take long come first."""


def count(report: Path) -> tuple[int, int]:
    """How many tests passed and failed, from pytest's JUnit report; none if it wrote none."""
    passed = failed = 0
    for suite in _suites(report):
        bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        failed += bad
        passed += int(suite.get("tests", 0)) - bad - int(suite.get("skipped", 0))
    return passed, failed


def not_here(report: Path) -> tuple[str, ...]:
    """What could not be tried for real, in the report's own sentences."""
    return tuple(
        found.get("value", "")
        for suite in _suites(report)
        for found in suite.iter("property")
        if found.get("name") == NOT_HERE
    )


def failures(report: Path) -> tuple[str, ...]:
    """Each test that failed, by name, with the last lines of its report."""
    return tuple(
        f"-- {case.get('classname')}::{case.get('name')}\n{_last_lines(problem.text)}"
        for suite in _suites(report)
        for case in suite.iter("testcase")
        for problem in (*case.iter("failure"), *case.iter("error"))
    )


def _last_lines(text: str | None) -> str:
    return "\n".join((text or "").splitlines()[-FAILURE_LINES:])


def _suites(report: Path) -> Iterator[ElementTree.Element]:
    if report.exists():
        yield from ElementTree.parse(report).iter("testsuite")


def parallel_processes() -> int:
    """How many tests run at once: they wait more than they compute; each has servers of its own."""
    return min(2 * (os.cpu_count() or 1), 8)


def start(tier: Tier, reports: Path, temporary: Path) -> Running:
    """Start one tier; its report and its output go to files of its name."""
    report, output = reports / f"{tier.name}.xml", reports / f"{tier.name}.txt"
    report.unlink(missing_ok=True)
    # By itself pytest clears away what older runs have left, and two at once do it to each other.
    own = [f"--junit-xml={report}", f"--basetemp={temporary / tier.name}"]
    argv = [sys.executable, "-m", "pytest", "-q", *own, *tier.arguments]
    if tier.is_parallel:
        argv += ["-n", str(parallel_processes()), "--dist", "worksteal"]
    environment = {**os.environ, "HPC_TEST_DATABASE": tier.database}
    # Else each of many hundred short processes compiles all that it imports.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with output.open("wb") as file:
        process = subprocess.Popen(
            argv, cwd=CHECKOUT, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    print(f"== {tier.name} tests, with {tier.database}, have begun; see {output}", flush=True)
    return Running(tier, process, report, output, time.monotonic())


def show(ended: Running) -> Outcome:
    """Print what a tier that has ended had printed, and what came of it."""
    tier, status = ended.tier, ended.process.returncode
    took_s = time.monotonic() - ended.started_at
    passed, failed = count(ended.report)
    print(f"== {tier.name} tests, with {tier.database}:")
    print(ended.output.read_text(errors="replace"), end="")
    print(
        f"== {tier.name}: {passed} passed, {failed} failed"
        f" in {took_s:.0f} s (pytest's exit status {status})",
        flush=True,
    )
    return Outcome(status, passed, failed, not_here(ended.report), failures(ended.report))


class Run:
    """The tiers that wait, those that run, and what came of the others."""

    def __init__(
        self, tiers: Sequence[Tier], reports: Path, temporary: Path, side_by_side: int
    ) -> None:
        self.reports = reports
        self.temporary = temporary
        self.side_by_side = side_by_side
        self.waiting = list(tiers)
        self.running: list[Running] = []
        self.outcomes: list[Outcome] = []
        self.signals: list[int] = []

    def to_the_end(self) -> None:
        """Run all, whatever came of those before; if interrupted, wait for those that run."""
        with self._interruptions_left_to_them():
            while self.running or (self.waiting and not self.signals):
                self._fill_up()
                self._show_what_ended()

    def _fill_up(self) -> None:
        while self.waiting and len(self.running) < self.side_by_side and not self.signals:
            one = start(self.waiting.pop(0), self.reports, self.temporary)
            self.running.append(one)
            if signal.SIGTERM in self.signals:
                one.process.terminate()  # it came while this one was started

    def _show_what_ended(self) -> None:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)  # until one has ended: `poll` tells which
        for one in [one for one in self.running if one.process.poll() is not None]:
            self.running.remove(one)
            self.outcomes.append(show(one))

    @contextlib.contextmanager
    def _interruptions_left_to_them(self) -> Iterator[None]:
        """Let pytest, which gets the same Ctrl-C, stop what it has started."""

        def note(number: int, frame: object) -> None:
            self.signals.append(number)
            if number == signal.SIGTERM:
                for one in self.running:
                    one.process.terminate()

        previous = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def main(
    tiers: Sequence[Tier] = TIERS, reports: Path = REPORTS, side_by_side: int = SIDE_BY_SIDE
) -> int:
    """Run the tiers; return 0 if every one is good, 128 + N after signal N."""
    reports.mkdir(parents=True, exist_ok=True)
    started_at = time.monotonic()
    # Near the root: the tests' paths may be those of sockets.
    with tempfile.TemporaryDirectory(
        prefix="hpc-tests-", dir="/tmp", ignore_cleanup_errors=True
    ) as temporary:
        run = Run(tiers, reports, Path(temporary), side_by_side)
        run.to_the_end()
    # Once more, where somebody looks who sees the end of a long output only.
    for failure in (one for outcome in run.outcomes for one in outcome.failures):
        print(failure)
    for sentence in dict.fromkeys(s for outcome in run.outcomes for s in outcome.not_here):
        print(sentence)
    passed = sum(outcome.passed for outcome in run.outcomes)
    failed = sum(outcome.failed for outcome in run.outcomes)
    print(f"{passed} passed, {failed} failed in {time.monotonic() - started_at:.0f} s")
    if run.signals:
        return 128 + run.signals[0]
    return int(any(outcome.status for outcome in run.outcomes))


if __name__ == "__main__":
    sys.exit(main())
