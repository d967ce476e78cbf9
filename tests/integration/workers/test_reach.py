"""What workers keep of logins and bootstraps: told once, never lost, never told over and over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import pytest
from django import db
from django.db import OperationalError

from controller import crypto
from controller.models import ClusterLink, HpcCluster, Kind, LoginAttempt, Procedure
from controller.services import clusters, logins, procedures
from workers.links import clock, errors, pool, ssh_errors, steps
from workers.operations import bootstrap, reach, recording, untold

T = TypeVar("T")
STEP = steps.Step("Start the daemon", steps.DONE, 0.5)


@pytest.fixture
def cluster(db: None) -> HpcCluster:
    return clusters.register(
        name="hpc",
        host_name="login.example.org",
        username="ada",
        password="secret",
        client_path="/opt/hpc",
    )


def gate(cluster: HpcCluster, run: reach.Run = reach.directly) -> reach.Gate:
    return reach.Gate(cluster.pk, reach.TEST, run, clusters.ensure_link(cluster).login_changed_at)


# Logins -------------------------------------------------------------------------------------------


def test_a_refusal_stands_for_all_until_somebody_acts(cluster: HpcCluster) -> None:
    first = gate(cluster)
    assert first.ask() == 0
    first.told(ssh_errors.SecondFactor("It asks for more."))
    with pytest.raises(ssh_errors.SecondFactor, match="It asks for more"):
        gate(cluster).ask()
    clusters.change(cluster, password="another")
    assert gate(cluster).ask() == 0
    assert LoginAttempt.objects.count() == 2


def test_a_pause_holds_for_all(cluster: HpcCluster) -> None:
    first = gate(cluster)
    first.ask()
    first.told(ssh_errors.RefusedBeforeBanner("It hangs up."))
    with pytest.raises(ssh_errors.BudgetSpent, match="It hangs up") as caught:
        gate(cluster).ask()
    assert 590 < caught.value.pause_s <= 600


def test_credentials_that_were_changed_meanwhile_are_not_tried(cluster: HpcCluster) -> None:
    outdated = gate(cluster)
    clusters.change(cluster, password="another")
    with pytest.raises(ssh_errors.BudgetSpent, match="changed"):
        outdated.ask()
    assert not LoginAttempt.objects.exists()


def test_a_refusal_that_could_not_be_stored_is_told_before_the_next_login(
    cluster: HpcCluster,
) -> None:
    is_down = False

    def run(call: Callable[[], T], /) -> T:
        if is_down:
            raise OperationalError("The database is away.")
        return call()

    first = gate(cluster, run)
    first.ask()
    is_down = True
    first.told(ssh_errors.LoginRefused("Wrong password."))
    is_down = False
    with pytest.raises(ssh_errors.LoginRefused, match="Wrong password"):
        gate(cluster).ask()
    assert LoginAttempt.objects.get().outcome == "login_refused"


def test_a_refusal_heard_while_the_worker_stops_is_stored(
    transactional_db: None, cluster: HpcCluster
) -> None:
    writers = pool.KeyedPool("test", 1, db.connections.close_all)
    first = gate(cluster, lambda call: writers.call(cluster.pk, call, 10))
    first.ask()
    writers.close(5)
    first.told(ssh_errors.LoginRefused("Wrong password."))
    assert LoginAttempt.objects.get().outcome == "login_refused"


def test_what_is_still_untold_is_told_when_the_process_ends(
    transactional_db: None, cluster: HpcCluster
) -> None:
    is_down = False

    def run(call: Callable[[], T], /) -> T:
        if is_down:
            raise OperationalError("The database is away.")
        return call()

    first = gate(cluster, run)
    first.ask()
    is_down = True
    first.told(None)
    first.revoked(ssh_errors.PasswordExpired("It has expired."))
    untold.untold.last_words()
    with pytest.raises(ssh_errors.PasswordExpired):
        gate(cluster).ask()


def test_the_end_of_a_process_does_not_wait_long_for_a_database_that_hangs() -> None:
    kept, is_over = untold.Untold(), threading.Event()

    def hang() -> None:
        is_over.wait(10)

    kept.keep(1, hang)
    begun_at = clock.now()
    kept.last_words(0.1)
    assert clock.now() - begun_at < 5
    is_over.set()


def test_good_credentials_that_prove_expired_are_refused_for_all(cluster: HpcCluster) -> None:
    first, expired = gate(cluster), ssh_errors.PasswordExpired("It has expired.")
    first.ask()
    first.told(None)
    first.revoked(expired)
    with pytest.raises(ssh_errors.PasswordExpired, match="It has expired"):
        gate(cluster).ask()
    logins.forgive(cluster.pk)
    second = gate(cluster)
    second.ask()
    second.told(None)
    first.revoked(expired)  # of an older login
    assert gate(cluster).ask() == 0
    assert list(LoginAttempt.objects.order_by("pk").values_list("outcome", flat=True)) == [
        "password_expired",
        "good",
        "",
    ]


def test_secrets_that_no_key_opens_are_tried_again_by_themselves(
    cluster: HpcCluster,
) -> None:
    HpcCluster.objects.filter(pk=cluster.pk).update(password=crypto.Sealed("gAAAAA-of-another"))
    with pytest.raises(errors.CannotConnect, match="HPC_SECRET_KEYS") as caught:
        bootstrap.plan(cluster.pk)
    assert (caught.value.reason, caught.value.transient) == ("cannot_decrypt", True)
    assert caught.value.pause_s == reach.DECRYPT_PAUSE_S


# Bootstraps ---------------------------------------------------------------------------------------


def told(cluster: HpcCluster) -> list[tuple[str, str, list[str]]]:
    return [
        (procedure.state, procedure.reason, [step.name for step in procedure.steps.all()])
        for procedure in Procedure.objects.filter(cluster=cluster).order_by("pk")
    ]


def attempt(cluster: HpcCluster, *, is_change: bool = True) -> recording.Recordings:
    """One try to make a link, up to its end."""
    recordings = recording.Recordings("worker")
    its = recordings.take_up(cluster.pk, reach.directly)
    its.record(steps.Step("Log in", steps.DONE, 0.1))
    if is_change:
        its.begin()
        its.record(STEP)
    return recordings


def come_up(cluster: HpcCluster, recordings: recording.Recordings) -> bool:
    return recordings.end(cluster.pk, lambda its: its.came_up("It greets."))


def fail(cluster: HpcCluster, recordings: recording.Recordings) -> bool:
    is_asked = recordings.end(cluster.pk, lambda its: its.failed("died", "It died."))
    ClusterLink.objects.filter(pk=cluster.pk).update(failures=1)
    return is_asked


def test_a_link_made_without_a_change_leaves_no_procedure(cluster: HpcCluster) -> None:
    assert not come_up(cluster, attempt(cluster, is_change=False))
    assert told(cluster) == []


def test_a_change_is_told_with_what_was_done_before_it(cluster: HpcCluster) -> None:
    assert not come_up(cluster, attempt(cluster))
    assert told(cluster) == [("done", "", ["Log in", STEP.name])]


def test_of_many_tries_the_first_failure_and_the_success_are_told(cluster: HpcCluster) -> None:
    for _ in range(3):
        assert not fail(cluster, attempt(cluster))
    come_up(cluster, attempt(cluster))
    names = ["Log in", STEP.name]
    assert told(cluster) == [("failed", "died", names), ("done", "", names)]


def test_what_was_asked_for_is_told_each_time(cluster: HpcCluster) -> None:
    fail(cluster, attempt(cluster))
    procedures.request(cluster, Kind.BOOTSTRAP)
    assert fail(cluster, attempt(cluster, is_change=False))
    assert told(cluster)[1] == ("failed", "died", ["Log in"])


def test_what_a_worker_left_behind_is_ended_by_the_next(cluster: HpcCluster) -> None:
    procedures.request(cluster, Kind.BOOTSTRAP)
    attempt(cluster)
    assert come_up(cluster, attempt(cluster, is_change=False))
    gone = ("failed", "worker_gone", ["Log in", STEP.name])
    assert told(cluster) == [gone, ("done", "", ["Log in"])]
    attempt(cluster)  # nobody asked for this one
    assert not come_up(cluster, attempt(cluster, is_change=False))
    assert told(cluster)[2:] == [gone]
