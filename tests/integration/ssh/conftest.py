"""Fixtures of the tests over SSH."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops import services, sshd
from workers.links import bridge, client_archive, upload

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


@pytest.fixture(scope="module")
def files_stack(django_db_blocker: Any) -> Iterator[Any]:
    """Database and Redis for the whole module; no worker holds a link here."""
    from tests import stack as stacks  # needs Django's settings

    with tempfile.TemporaryDirectory(prefix="hpc-t-", dir="/tmp") as place:
        directory = Path(place)
        redis = services.Redis(directory / "redis", with_port=True)
        redis.start()
        try:
            url = f"sqlite:///{directory}/db.sqlite3"
            with django_db_blocker.unblock(), stacks.running(directory, redis, url) as made:
                yield made
        finally:
            redis.stop()


@pytest.fixture(scope="session")
def files_account(site: Site, archive: client_archive.Archive) -> sshd.Account:
    """An account with a client in its home directory."""
    from . import places  # needs Django's models

    account = site.add_account("files-user", password=places.PASSWORD)
    with site.carrier(site.server(), account.name) as carrier:
        upload.put(carrier, bridge.Installation(str(account.home / "client")), archive)
    return account


@pytest.fixture
def make_place(
    files_stack: Any, site: Site, files_account: sshd.Account
) -> Iterator[Callable[..., Any]]:
    """Makes clusters on servers of their own, with a job each."""
    from controller.models import HpcCluster, HpcJob
    from workers.operations import files

    from . import places

    def one(options: dict[str, str] | None = None, **fields: Any) -> Any:
        return places.Place(site, site.new_server(options), files_account, **fields)

    yield one
    files.close()
    HpcJob.objects.all().delete()
    HpcCluster.objects.all().delete()
