"""Runs the tiers of tests one after the other and says how long each took."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
REPORTS = CHECKOUT / "tests" / "artefacts"


@dataclass(frozen=True)
class Tier:
    """One run of pytest."""

    name: str
    arguments: tuple[str, ...]
    database: str = "sqlite"
    is_parallel: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of one tier."""

    status: int
    passed: int
    failed: int
    took_s: float


CLUSTERS = ("tests/integration/ssh", "tests/integration/slurm")
"""Each starts servers for a whole run, and is apart so that they start once."""

APART = tuple(f"--ignore={folder}" for folder in CLUSTERS)

TIERS = (
    Tier("unit", ("tests/unit",)),
    Tier("integration", ("tests/integration", *APART), is_parallel=True),
    Tier("clusters", CLUSTERS),
    Tier(
        "database",
        ("-m", "database", "tests/unit", "tests/integration", *APART),
        "postgresql",
        True,
    ),
    Tier("acceptance", ("tests/acceptance",)),
)


def count(report: Path) -> tuple[int, int]:
    """How many tests passed and failed, from pytest's JUnit report; none if it wrote none."""
    if not report.exists():
        return 0, 0
    passed = failed = 0
    for suite in ElementTree.parse(report).iter("testsuite"):
        bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        failed += bad
        passed += int(suite.get("tests", 0)) - bad - int(suite.get("skipped", 0))
    return passed, failed


def parallel_processes() -> int:
    """How many tests run at once: they wait more than they compute; each has servers of its own."""
    return min(2 * (os.cpu_count() or 1), 8)


def run(tier: Tier) -> Outcome:
    """Run one tier; its output goes where ours goes."""
    report = REPORTS / f"{tier.name}.xml"
    report.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *tier.arguments]
    if tier.is_parallel:
        argv += ["-n", str(parallel_processes()), "--dist", "worksteal"]
    environment = {**os.environ, "HPC_TEST_DATABASE": tier.database}
    started = time.monotonic()
    process = subprocess.Popen(argv, cwd=CHECKOUT, env=environment)
    with interruptions_left_to(process):
        status = process.wait()
    passed, failed = count(report)
    return Outcome(status, passed, failed, time.monotonic() - started)


@contextlib.contextmanager
def interruptions_left_to(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let pytest, which gets the same Ctrl-C, stop what it has started; then stop as well."""
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        received.append(number)
        if number == signal.SIGTERM:
            process.terminate()

    previous = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if received:
        raise SystemExit(128 + received[0])


def main() -> int:
    """Run all tiers, whatever came of those before; return 0 if every one is good."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for tier in TIERS:
        print(f"== {tier.name} tests, with {tier.database}", flush=True)
        outcome = run(tier)
        outcomes.append(outcome)
        print(
            f"== {tier.name}: {outcome.passed} passed, {outcome.failed} failed"
            f" in {outcome.took_s:.0f} s (pytest's exit status {outcome.status})",
            flush=True,
        )
    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(outcome.failed for outcome in outcomes)
    took_s = sum(outcome.took_s for outcome in outcomes)
    print(f"{passed} passed, {failed} failed in {took_s:.0f} s")
    return int(any(outcome.status for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
