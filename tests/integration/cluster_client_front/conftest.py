"""Fixtures for tests that start the cluster client as its users do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cluster_client_front.harness import Installation
from tests.pythons import (  # noqa: F401 - hooks and fixtures that pytest finds here
    client_python,
    pytest_generate_tests,
    pytest_terminal_summary,
)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "every_python: run under every supported interpreter")


@pytest.fixture
def installation(client_python: Path, short_directory: Path) -> Iterator[Installation]:  # noqa: F811
    """A client of its own, in a directory of another name than the package's."""
    with Installation.copy(client_python, short_directory / "a client") as one:
        yield one
