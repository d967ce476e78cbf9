"""Many processes at one gate: one first try, a budget that holds, one that does the work."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import transaction

from controller.models import (
    ClusterLink,
    HostKey,
    HpcCluster,
    Kind,
    LoginAttempt,
    LoginState,
    Procedure,
)
from controller.services import clusters, host_keys, logins, procedures

from .test_concurrency import at_once

THREADS = 8
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def north() -> HpcCluster:
    return clusters.register(name="north", host_name="localhost", client_path="/opt/hpc")


def ask_at_once(cluster: HpcCluster, count: int = THREADS) -> list[int]:
    """The ids of the attempts that were allowed."""
    answers = at_once(*[lambda: logins.ask(cluster.pk, "control")] * count)
    assert all(isinstance(answer, logins.Allowed | logins.Wait) for answer in answers)
    return [answer.attempt_id for answer in answers if isinstance(answer, logins.Allowed)]


def test_of_many_askers_one_tries_what_is_new(north: HpcCluster) -> None:
    (attempt_id,) = ask_at_once(north)
    assert LoginAttempt.objects.get().pk == attempt_id


def test_a_try_that_was_given_up_is_taken_over_by_one(north: HpcCluster) -> None:
    ask_at_once(north)
    LoginAttempt.objects.update(at="2020-01-01T00:00:00Z")
    assert len(ask_at_once(north)) == 1


def log_in(cluster: HpcCluster) -> None:
    """A good login, just now."""
    (attempt_id,) = ask_at_once(cluster, 1)
    logins.told(cluster.pk, attempt_id)


def test_what_was_good_long_ago_is_tried_by_one_again(north: HpcCluster) -> None:
    log_in(north)
    assert len(ask_at_once(north)) > 1
    LoginAttempt.objects.update(at="2020-01-01T00:00:00Z")
    (attempt_id,) = ask_at_once(north)
    logins.told(north.pk, attempt_id, "login_refused", "No.", is_refusal=True)
    assert isinstance(logins.ask(north.pk, "files"), logins.Refused)


def test_the_budget_holds_for_all_together(north: HpcCluster) -> None:
    log_in(north)
    allowed = ask_at_once(north) + ask_at_once(north, 4)
    assert len(allowed) == len(set(allowed)) == LoginAttempt.objects.count() - 1 == 5


def test_of_many_refusals_and_good_logins_the_refusal_stands(north: HpcCluster) -> None:
    log_in(north)
    first, *others = ask_at_once(north)
    at_once(
        lambda: logins.told(north.pk, first, "login_refused", "No.", is_refusal=True),
        *[lambda n=n: logins.told(north.pk, n) for n in others],
    )
    assert ClusterLink.objects.get().login_state == LoginState.REFUSED


def test_a_login_and_a_change_of_its_cluster_do_not_wait_for_each_other(north: HpcCluster) -> None:
    is_locked = threading.Event()

    def log_in() -> None:
        with transaction.atomic():
            logins.locked(north.pk)
            is_locked.set()
            time.sleep(0.3)  # the other waits for a row by then, which nothing tells
            LoginAttempt.objects.create(cluster=north, purpose="test")

    def rename() -> None:
        is_locked.wait(5)
        cluster = HpcCluster.objects.get()
        cluster.name, cluster.port = "south", 23
        clusters.save(cluster, {"name", "port"})

    assert at_once(log_in, rename) == [None, None]


def test_one_procedure_is_requested_and_claimed_by_one(north: HpcCluster) -> None:
    asked = at_once(*[lambda: procedures.request(north, Kind.TEST)] * THREADS)
    (made,) = set(asked)
    won = at_once(*[lambda n=n: procedures.claim(made.pk, f"w{n}") for n in range(THREADS)])
    assert len([one for one in won if one is not None]) == 1


def test_requests_and_own_bootstraps_at_once_leave_one_active(north: HpcCluster) -> None:
    calls = [
        lambda: procedures.request(north, Kind.BOOTSTRAP),
        lambda: procedures.begin(north.pk, Kind.BOOTSTRAP, "w"),
    ]
    at_once(*calls * (THREADS // 2))
    assert Procedure.objects.filter(state__in=["waiting", "running"]).count() == 1


def test_looks_and_confirmations_at_once_keep_each_key_once(north: HpcCluster) -> None:
    shown = [("ssh-rsa", f"SHA256:{n:043d}", "10.0.0.7") for n in range(3)]
    host_keys.record(north.pk, shown[:1])
    (first,) = HostKey.objects.all()
    results = at_once(
        *[lambda: host_keys.record(north.pk, shown)] * 4,
        *[lambda: host_keys.confirm(north, [first.pk])] * 3,
        lambda: logins.changed(north.pk),
    )
    assert not [one for one in results if isinstance(one, Exception)]
    assert HostKey.objects.count() == 3
    assert [pin.pk for pin in host_keys.pinned(north.pk)] == [first.pk]
