"""A private Slurm for the run, with a login node and accounts; `tests/conftest.py` has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ops import slurm, tiers

if TYPE_CHECKING:
    from tests.slurm_cluster import SlurmCluster

_closing_lines: set[str] = set()


@pytest.fixture(scope="session")
def slurm_cluster(
    service_directory: Path, record_testsuite_property: Callable[[str, object], None]
) -> Iterator[SlurmCluster]:
    """A Slurm with accounting and two nodes, and its login node: leave them as you found them."""
    from tests import slurm_cluster  # needs paramiko, which most tests don't

    made = slurm_cluster.SlurmCluster(service_directory / "cluster")
    if not made.slurm.has_cgroups:
        line = "Running out of memory was tested against recorded output alone: no cgroups here."
        _closing_lines.add(line)
        record_testsuite_property(tiers.NOT_HERE, line)
    yield made
    assert not made.close()


@pytest.fixture(scope="session")
def slurm_server(slurm_cluster: SlurmCluster) -> slurm.Slurm:
    """The Slurm of this run."""
    return slurm_cluster.slurm


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what could not be tried for real."""
    for line in sorted(_closing_lines):
        terminalreporter.write_line(line)
    _closing_lines.clear()
