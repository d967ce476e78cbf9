"""Fixtures of the tests over SSH."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .site import Site


@pytest.fixture(scope="session")
def site(service_directory: Path) -> Iterator[Site]:
    """Accounts, keys and servers of this run."""
    directory = service_directory / "ssh"
    directory.mkdir(mode=0o755)
    made = Site(directory)
    yield made
    assert not made.close()
