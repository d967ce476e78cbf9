"""Registering, linking and forgetting clusters."""

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from pytest_django import Settings

from controller import errors, publish
from controller.lifecycle import JobStatus
from controller.models import (
    Carrier,
    ClusterLink,
    HpcCluster,
    Kind,
    LinkState,
    LoginState,
    ProcedureState,
)
from controller.services import clusters, host_keys, links, logins

from .conftest import MakeJob

GOOD = {"name": "n", "host_name": "localhost", "client_path": "/opt/hpc"}
SSH = {**GOOD, "host_name": "login.example.org", "username": "ada", "password": "secret"}
OFFERED = ("ssh-ed25519", "SHA256:" + 43 * "A", "10.0.0.7")


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
        ("host_name", "http://example.org"),
        ("host_name", "ada@example.org"),
        ("host_name", "example.org:22"),
        ("host_name", "[::1]:22"),
        ("host_name", "-oProxyCommand=x"),
        ("host_name", "10.0.0.256"),
        ("host_name", "höst.example.org"),
        ("username", "-l"),
        ("username", "a b"),
        ("group", "-x"),
        ("group", "a b"),
        ("username", "a" * 65),
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


@pytest.mark.parametrize(
    ("host", "kept", "carrier"),
    [
        ("localhost", "localhost", Carrier.LOCAL),
        ("[::1]", "::1", Carrier.LOCAL),
        (" login.example.org ", "login.example.org", Carrier.SSH),
        ("[2001:db8::7]", "2001:db8::7", Carrier.SSH),
        ("10.0.0.7", "10.0.0.7", Carrier.SSH),
        ("fe80::1%eth0", "fe80::1%eth0", Carrier.SSH),
    ],
)
def test_the_host_says_what_carries_the_bytes(
    db: None, host: str, kept: str, carrier: Carrier
) -> None:
    made = clusters.register(**{**SSH, "host_name": host})
    assert (made.host_name, made.carrier) == (kept, carrier)


def test_localhost_over_ssh_must_be_chosen_where_the_local_carrier_is_off(
    db: None, settings: Settings
) -> None:
    settings.HPC_ALLOW_LOCAL_CARRIER = False
    with pytest.raises(errors.Invalid, match=r"carrier: localhost .* choose SSH"):
        clusters.register(**{**SSH, "host_name": "localhost"})
    made = clusters.register(**{**SSH, "host_name": "localhost", "carrier": "ssh"})
    assert made.carrier == Carrier.SSH


def test_ssh_needs_a_user(db: None) -> None:
    with pytest.raises(errors.Invalid, match=r"username: Enter the account on login\.example\.org"):
        clusters.register(**{**SSH, "username": ""})


def test_names_are_unique(cluster: HpcCluster) -> None:
    with pytest.raises(errors.Invalid, match="already exists"):
        clusters.register(**{**GOOD, "name": cluster.name})


def test_a_form_is_told_by_field(db: None) -> None:
    with pytest.raises(ValidationError) as caught:
        HpcCluster(**{**GOOD, "client_path": "x", "host_name": "y z"}).clean()
    assert set(caught.value.message_dict) == {"client_path", "host_name", "username", "key"}


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


def test_the_first_bootstrap_wants_the_link_and_a_later_one_leaves_it(cluster: HpcCluster) -> None:
    ClusterLink.objects.update(wanted=False)
    clusters.bootstrap(cluster)
    assert ClusterLink.objects.get().wanted
    ClusterLink.objects.update(wanted=False, epoch=1)
    clusters.bootstrap(cluster)
    assert not ClusterLink.objects.get().wanted


def test_a_bootstrap_that_nobody_took_up_is_withdrawn_with_the_link(cluster: HpcCluster) -> None:
    asked = clusters.bootstrap(cluster)
    clusters.disconnect(cluster)
    asked.refresh_from_db()
    assert (asked.state, asked.reason) == (ProcedureState.FAILED, "withdrawn")


@pytest.mark.parametrize("verb", [clusters.connect, clusters.test, clusters.bootstrap])
def test_no_login_is_asked_for_that_is_bound_to_fail(db: None, verb: Any, sent: Any) -> None:
    cluster = clusters.register(**SSH)
    HpcCluster.objects.filter(pk=cluster.pk).update(password="")
    with pytest.raises(errors.Invalid, match="neither a private key nor a password"):
        verb(HpcCluster.objects.get())
    with pytest.raises(errors.Invalid, match="No host key of cluster n is confirmed"):
        verb(cluster)
    assert not cluster.procedures.exists()
    assert not ClusterLink.objects.get().wanted
    host_keys.record(cluster.pk, [OFFERED])
    host_keys.confirm(cluster, [cluster.host_keys.get().pk])
    verb(cluster)


def test_a_test_is_a_procedure_and_a_nudge(
    cluster: HpcCluster, sent: Any, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        asked = [clusters.test(cluster), clusters.test(cluster)]
    assert asked[0] == asked[1] == cluster.procedures.get(kind=Kind.TEST)
    assert sent == [(publish.TEST_CONNECTION, cluster.pk, "hpc")] * 2


def refused(cluster: HpcCluster) -> ClusterLink:
    """The cluster's link after its credentials were refused."""
    attempt = logins.ask(cluster.pk, "control")
    assert isinstance(attempt, logins.Allowed)
    logins.told(cluster.pk, attempt.attempt_id, "login_refused", "No.", is_refusal=True)
    link = ClusterLink.objects.get(pk=cluster.pk)
    assert link.login_state == LoginState.REFUSED
    return link


def test_other_credentials_are_tried_at_once(cluster: HpcCluster, lease: links.Lease) -> None:
    refused(cluster)
    links.record_blocked(cluster.pk, lease.epoch, "login_refused", "No.")
    assert clusters.change(cluster, password="other") == {"password"}
    link = ClusterLink.objects.get(pk=cluster.pk)
    assert (link.state, link.blocked_reason, link.login_state) == (LinkState.DOWN, "", "")
    assert link.bootstrap_requested_at is None


def test_another_place_is_seen_to_by_the_holder_of_the_link(
    cluster: HpcCluster, lease: links.Lease
) -> None:
    ClusterLink.objects.update(address="10.0.0.7", outlives_login_on="login1")
    assert clusters.change(cluster, port=2222) == {"port"}
    link = ClusterLink.objects.get(pk=cluster.pk)
    assert (link.address, link.outlives_login_on) == ("", "")
    assert links.requested([cluster.pk]).bootstrap == {cluster.pk}


def test_what_concerns_no_login_leaves_the_link_alone(cluster: HpcCluster) -> None:
    refused(cluster)
    assert clusters.change(cluster, umask="0027") == {"umask"}
    assert ClusterLink.objects.get().login_state == LoginState.REFUSED


def test_a_change_brings_nothing_older_back(cluster: HpcCluster) -> None:
    refused(cluster)
    stale = HpcCluster.objects.get()
    HpcCluster.objects.update(umask="0027", password="newer")
    assert clusters.change(stale, labels={"site": "north"}) == {"labels"}
    found = HpcCluster.objects.get()
    assert (found.umask, found.password.reveal()) == ("0027", "newer")
    assert ClusterLink.objects.get().login_state == LoginState.REFUSED


def test_a_change_that_is_refused_changes_nothing(cluster: HpcCluster) -> None:
    with pytest.raises(errors.Invalid, match="host_name"):
        clusters.change(cluster, port=2222, host_name="a b")
    assert HpcCluster.objects.get().port == 22
