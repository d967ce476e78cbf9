"""Fixtures of the tests over SSH."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workers.links import client_archive

from .clusters import KEY, Cluster
from .site import Site


@pytest.fixture(scope="session")
def site(service_directory: Path) -> Iterator[Site]:
    """Accounts, keys and servers of this run."""
    directory = service_directory / "ssh"
    directory.mkdir(mode=0o755)
    made = Site(directory)
    yield made
    assert not made.close()


@pytest.fixture(scope="session")
def archive() -> client_archive.Archive:
    return client_archive.build()


@pytest.fixture
def make(site: Site) -> Iterator[Callable[..., Cluster]]:
    """Makes clusters; their daemons are stopped."""
    made: list[Cluster] = []

    def one(name: str, home: str = "", shell: str = "/bin/bash", **options: str) -> Cluster:
        account = site.add_account(name, shell, home)
        made.append(Cluster(site, site.server(**options), account))
        return made[-1]

    yield one
    for cluster in made:
        if (cluster.path / "state" / KEY / "registry").exists():
            cluster.stop()
