"""Registering, linking and forgetting clusters."""

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from pytest_django import Settings

from controller import errors, publish
from controller.lifecycle import JobStatus
from controller.models import ClusterLink, HpcCluster, LinkState
from controller.services import clusters, links

from .conftest import MakeJob

GOOD = {"name": "n", "host_name": "localhost", "client_path": "/opt/hpc"}


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/opt/hpc/", "/opt/hpc"),
        ("/opt/hpc/client.py", "/opt/hpc"),
        (" /opt//hpc/./x/../ ", "/opt/hpc"),
        ("//opt/hpc", "/opt/hpc"),
    ],
)
def test_a_path_is_mended(db: None, path: str, kept: str) -> None:
    assert clusters.register(**{**GOOD, "client_path": path}).client_path == kept


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("client_path", "opt/hpc"),
        ("client_path", "~/hpc"),
        ("client_path", "/"),
        ("client_path", "/client.py"),
        ("client_path", "/a\nb"),
        ("client_path", ""),
        ("host_name", ""),
        ("host_name", "example.org"),
        ("port", 0),
        ("port", 65536),
        ("name", "a b"),
        ("name", "a\n"),
        ("name", ""),
        ("umask", "77"),
        ("umask", "0999"),
        ("umask", "0000"),
        ("umask", "0775"),
        ("umask", "0700"),
        ("umask", "0777"),
        ("umask", "0177"),
        ("scheduler", "abacus"),
        ("mode", "floating"),
        ("labels", ["x"]),
        ("python", "a\nb"),
        ("setup_commands", "a\0b"),
    ],
)
def test_what_cannot_be_mended_is_refused_by_name(db: None, column: str, value: Any) -> None:
    with pytest.raises(errors.Invalid, match=column):
        clusters.register(**{**GOOD, column: value})
    assert not HpcCluster.objects.exists()


@pytest.mark.parametrize("umask", ["0077", "0027", "0022", "0007", "0002"])
def test_a_umask_that_keeps_others_from_writing_is_taken(db: None, umask: str) -> None:
    assert clusters.register(**GOOD, umask=umask).umask == umask


def test_the_local_carrier_must_be_allowed(db: None, settings: Settings) -> None:
    settings.HPC_ALLOW_LOCAL_CARRIER = False
    with pytest.raises(errors.Invalid, match="HPC_ALLOW_LOCAL_CARRIER"):
        clusters.register(**GOOD)


def test_names_are_unique(cluster: HpcCluster) -> None:
    with pytest.raises(errors.Invalid, match="already exists"):
        clusters.register(**{**GOOD, "name": cluster.name})


def test_a_form_is_told_by_field(db: None) -> None:
    with pytest.raises(ValidationError) as caught:
        HpcCluster(**{**GOOD, "client_path": "x", "host_name": "y"}).clean()
    assert set(caught.value.message_dict) == {"client_path", "host_name"}


def test_connecting_lifts_what_held_the_link_back(
    cluster: HpcCluster, sent: Any, django_capture_on_commit_callbacks: Any
) -> None:
    lease = links.take(cluster.pk, "a")
    assert lease is not None
    links.record_blocked(cluster.pk, lease.epoch, "no_python", "Install one.")
    links.release(cluster.pk, "a", lease.epoch)
    assert links.candidates(5) == []
    with django_capture_on_commit_callbacks(execute=True):
        cluster.try_connect()
    link = ClusterLink.objects.get(pk=cluster.pk)
    assert (link.wanted, link.state, link.blocked_reason) == (True, LinkState.DOWN, "")
    assert link.bootstrap_requested_at is None
    assert links.candidates(5) == [cluster.pk]
    assert sent == [(publish.CONNECT, cluster.pk, "hpc")]
    cluster.try_connect(force=True)
    link.refresh_from_db()
    assert link.bootstrap_requested_at is not None


def test_disconnecting_leaves_the_lease_to_its_holder(
    cluster: HpcCluster, lease: links.Lease
) -> None:
    clusters.disconnect(cluster)
    link = ClusterLink.objects.get(pk=cluster.pk)
    assert (link.wanted, link.holder) == (False, "holder")


def test_a_bootstrap_is_asked_of_whoever_holds_the_link(
    cluster: HpcCluster, sent: Any, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        clusters.bootstrap(cluster)
    assert sent == [(publish.BOOTSTRAP, cluster.pk, "hpc")]
    assert links.requested([cluster.pk]).bootstrap == {cluster.pk}


def test_a_cluster_is_forgotten_only_when_nothing_hangs_on_it(
    cluster: HpcCluster, make_job: MakeJob
) -> None:
    with pytest.raises(errors.Invalid, match="disconnect it first"):
        clusters.remove(cluster)
    ClusterLink.objects.update(wanted=False)
    job = make_job(JobStatus.COMPLETED, cluster=cluster)
    with pytest.raises(errors.Invalid, match="has 1 jobs"):
        clusters.remove(cluster)
    job.delete()
    clusters.remove(cluster)
    assert not HpcCluster.objects.exists()
