"""The original's verb `get_ssh_connection`: pinned, counted, and only where workers are at home."""

from __future__ import annotations

import pytest
from django.db import connection

from controller import errors, ssh_opener
from controller.models import HpcCluster, LoginAttempt
from controller.services import clusters, host_keys, logins
from ops import sshd
from tests.integration.controller.test_concurrency import at_once
from workers import install
from workers.operations import host_keys as looking

from .site import PASSWORD, USER, Site


@pytest.fixture
def server(site: Site) -> sshd.Sshd:
    """A server whose log is of one test alone."""
    return site.new_server()


@pytest.fixture
def cluster(server: sshd.Sshd, transactional_db: None) -> HpcCluster:
    """A cluster on the server; no host key of it is confirmed."""
    install.offer_ssh()
    return clusters.register(
        name="site",
        host_name=server.address,
        port=server.port,
        carrier="ssh",
        username=USER,
        password=PASSWORD,
        client_path="/opt/hpc",
    )


def confirm(cluster: HpcCluster) -> None:
    host_keys.fetch(cluster)
    assert looking.fetch(cluster.pk)
    host_keys.confirm(cluster, [key.pk for key in cluster.host_keys.all()])


def test_a_client_and_a_channel_are_handed_out(cluster: HpcCluster) -> None:
    with pytest.raises(errors.Invalid, match="No host key of cluster site is confirmed"):
        cluster.get_ssh_connection()
    assert not LoginAttempt.objects.exists()
    confirm(cluster)
    client, channel = cluster.get_ssh_connection()
    with client:
        channel.exec_command("id -un")
        assert channel.makefile().read() == f"{USER}\n".encode()
    assert list(LoginAttempt.objects.values_list("outcome", flat=True)) == ["good"]


def test_a_refusal_is_told_once_to_the_cluster_and_then_by_the_row(cluster: HpcCluster) -> None:
    confirm(cluster)
    clusters.change(cluster, password="wrong")
    for _ in range(2):
        with pytest.raises(errors.Refused, match=USER):
            cluster.get_ssh_connection()
    assert LoginAttempt.objects.get().outcome == "login_refused"


def test_where_no_session_opens_a_sentence_says_so(site: Site, cluster: HpcCluster) -> None:
    narrow = site.server(MaxSessions="0")
    HpcCluster.objects.update(port=narrow.port)
    confirm(HpcCluster.objects.get())
    with pytest.raises(errors.Unavailable, match="opens no session"):
        HpcCluster.objects.get().get_ssh_connection()


def test_of_many_at_once_one_tries_and_all_hear_of_it(
    cluster: HpcCluster, server: sshd.Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logins, "PATIENCE_S", 0.05)
    confirm(cluster)

    def try_it() -> str:
        found = HpcCluster.objects.get()
        try:
            found.get_ssh_connection()[0].close()
        finally:
            connection.close()
        return "good"

    clusters.change(cluster, password="wrong")
    said = at_once(*[try_it] * 5)
    assert [type(problem) for problem in said] == [errors.Refused] * 5
    assert sshd.wait_for_log(server, "Failed password")
    assert server.log.count("Failed password") == 1
    clusters.change(cluster, password=PASSWORD)
    assert at_once(*[try_it] * 5) == ["good"] * 5
    said = at_once(*[try_it] * 5)
    assert [type(problem) for problem in said] == [errors.Unavailable] * 5
    assert (server.log.count("Accepted password"), logins.spent(cluster.pk).last_minute) == (5, 6)


def test_where_nobody_handed_in_a_way_it_is_said(
    cluster: HpcCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirm(cluster)
    monkeypatch.setattr(ssh_opener, "_opener", None)
    with pytest.raises(errors.Misconfigured, match="hpc cluster test"):
        cluster.get_ssh_connection()
    here = clusters.register(name="here", host_name="localhost", client_path="/opt/hpc")
    with pytest.raises(errors.Invalid, match="without SSH"):
        here.get_ssh_connection()
