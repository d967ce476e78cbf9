"""A cluster with its link, and jobs at any point of their life."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import transaction

from controller import publish
from controller.lifecycle import JobStatus
from controller.models import ClusterLink, HpcCluster, HpcJob
from controller.services import clusters, host_keys, links

from .pages import ED25519, Watched, private_key

SCRIPT = "#!/bin/bash\necho done\n"
WELCOME: dict[str, Any] = {"host": "login1", "pid": 77, "client_version": "1.0", "outbox_id": "box"}


class MakeJob(Protocol):
    def __call__(self, status: JobStatus = ..., **columns: Any) -> HpcJob: ...


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, str]]:
    """Nudges as (task, id, queue), instead of a broker: what fires, and when, is in their place."""
    nudges: list[tuple[str, int, str]] = []
    monkeypatch.setattr(publish, "_send", lambda *nudge: nudges.append(nudge))
    return nudges


@pytest.fixture
def cluster(db: None) -> HpcCluster:
    """A registered cluster, its link wanted."""
    found = clusters.register(name="north", host_name="localhost", client_path="/opt/hpc")
    ClusterLink.objects.filter(cluster=found).update(wanted=True)
    return found


@pytest.fixture
def lease(cluster: HpcCluster) -> links.Lease:
    """The lease on the cluster's link, which is up."""
    taken = links.take(cluster.pk, "holder")
    assert taken is not None
    assert links.record_up(cluster.pk, taken.epoch, WELCOME)
    return taken


@pytest.fixture
def make_job(db: None) -> MakeJob:
    """Makes jobs whose row already stands at a status."""

    def make(status: JobStatus = JobStatus.DRAFT, **columns: Any) -> HpcJob:
        job = HpcJob.objects.create(name="j")
        values = {"job_status": status.value, "script": SCRIPT, **columns}
        HpcJob._base_manager.filter(pk=job.pk).update(**values)
        job.refresh_from_db()
        return job

    return make


@pytest.fixture
def commits(transactional_db: None) -> Iterator[Callable[[], None]]:
    """For tests with threads: real commits."""
    yield transaction.get_connection().close


@pytest.fixture
def committed(django_capture_on_commit_callbacks: Any) -> Any:
    """A context at whose end what waited for the commit is done."""
    return lambda: django_capture_on_commit_callbacks(execute=True)


@pytest.fixture
def browser(admin_user: User) -> Iterator[Watched]:
    made = Watched()
    made.force_login(admin_user)
    yield made
    told = [entry.get_change_message() for entry in LogEntry.objects.all()]
    assert not [secret for secret in made.secrets if secret in " ".join(told)]


@pytest.fixture
def far(db: None) -> HpcCluster:
    """A cluster behind SSH, just registered."""
    return clusters.register(
        name="far", host_name="login.far.example", username="portal", client_path="/opt/hpc",
        scheduler="slurm", key=private_key(),
    )  # fmt: skip


@pytest.fixture
def trusted(far: HpcCluster) -> HpcCluster:
    """The same with a confirmed host key."""
    host_keys.record(far.pk, [ED25519])
    host_keys.confirm(far, [key.pk for key in far.host_keys.all()])
    return far
