"""The gate before logins: counted, one first try, nothing refused tried twice."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Now
from pytest_django import Settings

from controller import errors, publish
from controller.models import ClusterLink, HpcCluster, LinkState, LoginAttempt, LoginState
from controller.services import clusters, links, logins


def asked(cluster: HpcCluster) -> logins.Answer:
    return logins.ask(cluster.pk, "control")


def allowed(cluster: HpcCluster) -> int:
    answer = asked(cluster)
    assert isinstance(answer, logins.Allowed), answer
    return answer.attempt_id


def waits(cluster: HpcCluster) -> logins.Wait:
    answer = asked(cluster)
    assert isinstance(answer, logins.Wait), answer
    return answer


def state_of(cluster: HpcCluster) -> str:
    return ClusterLink.objects.values_list("login_state", flat=True).get(pk=cluster.pk)


def age(seconds: float) -> None:
    """Let all attempts lie further back."""
    LoginAttempt.objects.update(at=F("at") - timedelta(seconds=seconds))


def test_new_credentials_are_tried_by_one_process(cluster: HpcCluster) -> None:
    first = allowed(cluster)
    assert state_of(cluster) == LoginState.TRYING
    assert waits(cluster).seconds == logins.PATIENCE_S
    logins.told(cluster.pk, first)
    assert state_of(cluster) == LoginState.GOOD
    assert allowed(cluster) != allowed(cluster)
    assert LoginAttempt.objects.get(pk=first).outcome == "good"


def test_a_refusal_stands_until_a_person_acts(cluster: HpcCluster) -> None:
    logins.told(cluster.pk, allowed(cluster), "login_refused", "No.\0", is_refusal=True)
    age(7200)
    logins.forget_old()
    assert asked(cluster) == logins.Refused("login_refused", "No.\ufffd")
    assert not LoginAttempt.objects.exists()  # nothing was counted: nobody logged in
    cluster.try_connect(force=True)  # a program's, which may ask in a loop
    assert isinstance(asked(cluster), logins.Refused)
    clusters.connect(cluster)
    logins.told(cluster.pk, allowed(cluster), "login_refused", "No.", is_refusal=True)
    assert isinstance(asked(cluster), logins.Refused)


def test_a_good_login_of_a_test_has_the_link_tried_again(
    cluster: HpcCluster, lease: links.Lease, sent: Any, django_capture_on_commit_callbacks: Any
) -> None:
    links.record_blocked(cluster.pk, lease.epoch, "host_key_changed", "Look.")
    logins.told(cluster.pk, allowed(cluster))
    assert ClusterLink.objects.get().state == LinkState.BLOCKED
    links.record_blocked(cluster.pk, lease.epoch, "login_refused", "No.")
    with django_capture_on_commit_callbacks(execute=True):
        logins.told(cluster.pk, allowed(cluster))
    assert ClusterLink.objects.get().state == LinkState.DOWN
    assert sent == [(publish.CONNECT, cluster.pk, "hpc")]


def test_credentials_that_were_good_can_be_refused_later(cluster: HpcCluster) -> None:
    logins.told(cluster.pk, allowed(cluster))
    first, second = allowed(cluster), allowed(cluster)
    logins.told(cluster.pk, first, "password_expired", "Change it.", is_refusal=True)
    logins.told(cluster.pk, second)
    assert state_of(cluster) == LoginState.REFUSED


def test_a_failure_that_is_no_refusal_lets_the_next_process_try(cluster: HpcCluster) -> None:
    logins.told(cluster.pk, allowed(cluster), "host_unreachable", "Off.")
    assert state_of(cluster) == LoginState.UNTRIED
    logins.told(cluster.pk, allowed(cluster))
    logins.told(cluster.pk, allowed(cluster), "host_unreachable", "Off.")
    assert state_of(cluster) == LoginState.GOOD


def test_the_try_of_a_process_that_died_is_taken_over_once(cluster: HpcCluster) -> None:
    dead = allowed(cluster)
    age(logins.TRYING_S + 1)
    second = allowed(cluster)
    waits(cluster)
    logins.told(cluster.pk, dead, "host_silent", "It lived after all.")
    assert state_of(cluster) == LoginState.TRYING  # the second one's
    logins.told(cluster.pk, second)
    assert state_of(cluster) == LoginState.GOOD


@pytest.mark.parametrize("is_refusal", [True, False])
def test_an_attempt_begun_before_a_change_tells_nothing_of_what_is_new(
    cluster: HpcCluster, is_refusal: bool
) -> None:
    old = allowed(cluster)
    logins.changed(cluster.pk)
    new = allowed(cluster)  # it need not wait
    reason = "login_refused" if is_refusal else ""
    logins.told(cluster.pk, old, reason, is_refusal=is_refusal, pause_s=600)
    assert state_of(cluster) == LoginState.TRYING
    logins.told(cluster.pk, new)
    assert state_of(cluster) == LoginState.GOOD


def test_credentials_loaded_before_a_change_are_not_tried(cluster: HpcCluster) -> None:
    for _ in range(2):
        loaded_at = ClusterLink.objects.get().login_changed_at
        assert isinstance(logins.ask(cluster.pk, "files", loaded_at), logins.Allowed)
        logins.changed(cluster.pk)
        assert isinstance(logins.ask(cluster.pk, "files", loaded_at), logins.Wait)


def test_a_person_who_presses_a_button_twice_disturbs_no_try(cluster: HpcCluster) -> None:
    loaded_at = ClusterLink.objects.get().login_changed_at
    first = allowed(cluster)
    logins.forgive(cluster.pk)
    waits(cluster)
    logins.told(cluster.pk, first)
    logins.forgive(cluster.pk)
    assert state_of(cluster) == LoginState.GOOD
    assert isinstance(logins.ask(cluster.pk, "files", loaded_at), logins.Allowed)


def test_what_was_under_way_at_a_refusal_does_not_refuse_the_forgiven(cluster: HpcCluster) -> None:
    logins.told(cluster.pk, allowed(cluster))
    first, second = allowed(cluster), allowed(cluster)
    logins.told(cluster.pk, first, "login_refused", "No.", is_refusal=True)
    logins.forgive(cluster.pk)
    logins.told(cluster.pk, second, "login_refused", "No.", is_refusal=True)
    assert state_of(cluster) == LoginState.UNTRIED


def test_what_is_told_twice_counts_once(cluster: HpcCluster) -> None:
    attempt = allowed(cluster)
    logins.told(cluster.pk, attempt)
    logins.told(cluster.pk, attempt, "login_refused", "No.", is_refusal=True)
    assert state_of(cluster) == LoginState.GOOD


def test_a_good_login_that_proves_none_is_revoked_until_another_is_good(
    cluster: HpcCluster,
) -> None:
    first, expired = allowed(cluster), "password_expired"
    logins.told(cluster.pk, first)
    logins.revoked(cluster.pk, first, expired, "Change it.")
    assert asked(cluster) == logins.Refused(expired, "Change it.")
    logins.forgive(cluster.pk)
    logins.revoked(cluster.pk, first, expired)
    assert state_of(cluster) == LoginState.UNTRIED
    second = allowed(cluster)
    logins.told(cluster.pk, second)
    logins.revoked(cluster.pk, first, expired)
    assert state_of(cluster) == LoginState.GOOD
    logins.changed(cluster.pk)
    logins.revoked(cluster.pk, second, expired)
    assert state_of(cluster) == LoginState.UNTRIED


def test_a_host_that_hangs_up_gets_its_pause_from_all(cluster: HpcCluster) -> None:
    detail = "It hung up."
    logins.told(cluster.pk, allowed(cluster), "refused_before_banner", detail, pause_s=600)
    waiting = waits(cluster)
    assert 590 < waiting.seconds <= 600
    assert waiting.sentence.startswith("It hung up. The next login is tried in ")
    assert LoginAttempt.objects.count() == 1
    ClusterLink.objects.update(login_not_before=Now())
    logins.told(cluster.pk, allowed(cluster), "refused_before_banner", detail, pause_s=600)
    logins.forgive(cluster.pk)
    allowed(cluster)


def test_logins_are_counted_by_the_minute_and_by_the_hour(
    cluster: HpcCluster, settings: Settings
) -> None:
    settings.HPC_LOGINS_PER_MINUTE, settings.HPC_LOGINS_PER_HOUR = 2, 5
    logins.told(cluster.pk, allowed(cluster))
    logins.told(cluster.pk, allowed(cluster))
    assert 30 < waits(cluster).seconds <= 60
    age(20)
    assert 5 < waits(cluster).seconds <= 40
    age(30)
    age(50)
    logins.told(cluster.pk, allowed(cluster))
    logins.told(cluster.pk, allowed(cluster))
    age(100)
    logins.told(cluster.pk, allowed(cluster))
    assert 3600 - 260 < waits(cluster).seconds <= 3600 - 199
    assert logins.spent(cluster.pk) == logins.Spent(1, 5, 2, 5)
    age(3600)
    assert logins.forget_old() == 5
    allowed(cluster)


def test_a_cluster_that_is_gone_is_named(db: None) -> None:
    with pytest.raises(errors.NotFound, match="no cluster 7"):
        logins.ask(7, "control")
    logins.told(7, 1)
