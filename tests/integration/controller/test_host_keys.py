"""Host keys: shown by hosts, confirmed by people, never changed."""

from __future__ import annotations

from typing import Any

import pytest

from controller import errors, publish
from controller.models import ClusterLink, HostKey, HpcCluster, Kind, LinkState, LoginState
from controller.services import clusters, host_keys, links, logins

ED25519 = ("ssh-ed25519", "SHA256:" + 43 * "A", "10.0.0.7")
RSA = ("ssh-rsa", "SHA256:" + 43 * "B", "10.0.0.7")
ED25519_ELSEWHERE = (*ED25519[:2], "10.0.0.8")


def key(offered: tuple[str, str, str]) -> HostKey:
    return HostKey.objects.get(fingerprint=offered[1], address=offered[2])


def test_a_look_is_a_procedure_and_a_nudge(
    cluster: HpcCluster, sent: Any, django_capture_on_commit_callbacks: Any, admin_user: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        asked = host_keys.fetch(cluster, admin_user)
    assert (asked.kind, asked.requested_by) == (Kind.HOST_KEYS, admin_user)
    assert sent == [(publish.FETCH_HOST_KEYS, cluster.pk, "hpc")]


def test_keys_are_kept_as_shown_and_trusted_only_when_confirmed(
    cluster: HpcCluster, admin_user: Any
) -> None:
    shown = [ED25519, RSA, ED25519]
    assert host_keys.record(cluster.pk, shown) == host_keys.Counts(new=2, known=0, missing=0)
    assert host_keys.pinned(cluster.pk) == []
    assert host_keys.confirm(cluster, [key(ED25519).pk], admin_user) == 1
    assert host_keys.confirm(cluster, [key(ED25519).pk]) == 0
    assert host_keys.record(cluster.pk, [ED25519]) == host_keys.Counts(new=0, known=1, missing=1)
    assert (key(ED25519).is_offered, key(RSA).is_offered) == (True, False)
    assert [pin.confirmed_by for pin in host_keys.pinned(cluster.pk)] == [admin_user]


def test_a_key_is_trusted_or_not_at_all_addresses_of_a_cluster(cluster: HpcCluster) -> None:
    host_keys.record(cluster.pk, [ED25519])
    host_keys.confirm(cluster, [key(ED25519).pk])
    host_keys.record(cluster.pk, [ED25519, ED25519_ELSEWHERE])
    assert len(host_keys.pinned(cluster.pk)) == 2
    assert host_keys.withdraw(cluster, [key(ED25519_ELSEWHERE).pk]) == 1
    assert host_keys.pinned(cluster.pk) == []
    assert host_keys.confirm(cluster, [key(ED25519).pk]) == 1
    assert len(host_keys.pinned(cluster.pk)) == 2


def test_hosts_that_could_not_be_asked_keep_what_is_known_of_them(cluster: HpcCluster) -> None:
    host_keys.record(cluster.pk, [ED25519, RSA, ED25519_ELSEWHERE])
    assert host_keys.record(cluster.pk, [ED25519]) == host_keys.Counts(new=0, known=1, missing=1)
    assert (key(ED25519_ELSEWHERE).is_offered, key(RSA).is_offered) == (True, False)


def test_a_changed_key_is_another_row_and_the_pin_stands(cluster: HpcCluster) -> None:
    host_keys.record(cluster.pk, [ED25519])
    host_keys.confirm(cluster, [key(ED25519).pk])
    changed = (ED25519[0], RSA[1], ED25519[2])
    assert host_keys.record(cluster.pk, [changed]) == host_keys.Counts(1, 0, 1)
    (pin,) = host_keys.pinned(cluster.pk)
    assert pin.fingerprint == ED25519[1]
    assert host_keys.withdraw(cluster, [key(changed).pk]) == 1  # never trusted: it is forgotten
    assert host_keys.withdraw(cluster, [pin.pk]) == 1
    assert list(HostKey.objects.values_list("confirmed_at", flat=True)) == [None]


def test_keys_of_another_cluster_are_refused(cluster: HpcCluster) -> None:
    other = clusters.register(name="south", host_name="localhost", client_path="/opt/hpc")
    host_keys.record(other.pk, [ED25519])
    for verb in (host_keys.confirm, host_keys.withdraw):
        for ids in ([], [key(ED25519).pk], [key(ED25519).pk, 2**40]):
            with pytest.raises(errors.Invalid, match="cluster north"):
                verb(cluster, ids)
    assert host_keys.pinned(other.pk) == []


def test_what_a_host_makes_up_is_not_kept(cluster: HpcCluster) -> None:
    strange = [("x" * 99, "SHA256:" + 43 * "C", "y" * 99), ("ssh-rsa", "MD5:00", ""), ("", "", "")]
    assert host_keys.record(cluster.pk, strange).new == 1
    made = HostKey.objects.get()
    assert (len(made.key_type), len(made.address)) == (64, 64)
    many = [("ssh-rsa", f"SHA256:{n:043d}", "") for n in range(1000)]
    assert host_keys.record(cluster.pk, many).new == host_keys.SHOWN_AT_MOST


@pytest.mark.parametrize(
    ("reason", "is_lifted"), [("host_key_changed", True), ("login_refused", False)]
)
def test_a_confirmation_lifts_what_it_cures(
    cluster: HpcCluster,
    lease: links.Lease,
    reason: str,
    is_lifted: bool,
    sent: Any,
    django_capture_on_commit_callbacks: Any,
) -> None:
    host_keys.record(cluster.pk, [ED25519])
    links.record_blocked(cluster.pk, lease.epoch, reason, "Look.")
    attempt = logins.ask(cluster.pk, "control")
    assert isinstance(attempt, logins.Allowed)
    logins.told(cluster.pk, attempt.attempt_id, "login_refused", "No.", is_refusal=True)
    with django_capture_on_commit_callbacks(execute=True):
        host_keys.confirm(cluster, [key(ED25519).pk])
    link = ClusterLink.objects.get(pk=cluster.pk)
    assert link.login_state == LoginState.UNTRIED
    assert (link.state == LinkState.DOWN) is is_lifted
    assert sent == [(publish.CONNECT, cluster.pk, "hpc")] * is_lifted
