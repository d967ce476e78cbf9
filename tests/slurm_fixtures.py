"""A private Slurm for the run.

For a conftest: `from tests.slurm_fixtures import pytest_terminal_summary, slurm_server`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ops import slurm

_closing_lines: set[str] = set()


@pytest.fixture(scope="session")
def slurm_server(service_directory: Path) -> Iterator[slurm.Slurm]:
    """A Slurm with accounting and two nodes, shared by the run: leave it as you found it."""
    server = slurm.Slurm(service_directory / "slurm")
    server.start()
    if not server.has_cgroups:
        _closing_lines.add(
            "Running out of memory was tested against recorded output alone: no cgroups here."
        )
    yield server
    server.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what could not be tried for real."""
    for line in sorted(_closing_lines):
        terminalreporter.write_line(line)
    _closing_lines.clear()
