"""Questions about files over a real sshd: one login for many, and what becomes of it."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Callable

import pytest
from pytest_django import Settings

from controller import crypto
from controller.models import HpcCluster, LoginAttempt, LoginState
from controller.services import clusters, host_keys
from controller.services import files as file_services
from ops import processes
from tests import stack as stacks
from tests.integration.controller.test_concurrency import at_once
from workers.operations import data_links, files

from .places import PASSWORD, Place
from .site import Site


def test_twenty_questions_cost_one_login(make_place: Callable[..., Place]) -> None:
    place = make_place()
    for _ in range(10):
        assert place.read() == b"hello\n"
        assert files.stat(place.job.pk, "stdout.log")["size_bytes"] == 6
    assert place.logins == (1, 1)
    assert place.cluster.logins.get().purpose == "files"


@pytest.mark.parametrize(("sessions", "questions"), [(10, 12), (1, 4)])
def test_many_at_once_share_one_login(
    make_place: Callable[..., Place], settings: Settings, sessions: int, questions: int
) -> None:
    settings.HPC_FILES_PARALLEL = 12
    place = make_place({"MaxSessions": str(sessions)})
    assert at_once(*[place.read] * questions) == [b"hello\n"] * questions
    assert place.logins == (1, 1)


def test_connection_that_ended_meanwhile_is_made_anew(make_place: Callable[..., Place]) -> None:
    place = make_place()
    place.read()
    place.cut()
    assert place.read() == b"hello\n"
    assert place.logins == (2, 2)


def test_question_whose_connection_dies_under_it_is_asked_once_more(
    make_place: Callable[..., Place],
) -> None:
    place = make_place()
    place.read()
    for pid in place.sessions():
        os.kill(pid, signal.SIGSTOP)

    def cut() -> None:
        assert processes.wait_until(lambda: files.seats.taken_of(place.cluster.pk) == 1, 10)
        place.cut()

    assert at_once(place.read, cut)[0] == b"hello\n"
    assert place.logins == (2, 2)


def test_client_that_was_ended_on_the_cluster_is_started_anew(
    make_place: Callable[..., Place],
) -> None:
    place = make_place()
    place.read()
    (client,) = place.clients()
    os.kill(client, signal.SIGKILL)
    assert place.read() == b"hello\n"
    assert client not in place.clients()
    assert place.logins == (1, 1)


def test_idle_connection_is_logged_out(
    make_place: Callable[..., Place], settings: Settings
) -> None:
    settings.HPC_DATA_IDLE_S = 0.2
    place = make_place()
    place.read()
    assert processes.wait_until(lambda: not place.sessions(), 10)
    assert data_links.connections.count() == 0
    assert place.read() == b"hello\n"
    assert place.logins == (2, 2)


def test_change_of_the_row_makes_a_new_connection(make_place: Callable[..., Place]) -> None:
    place = make_place()
    place.read()
    place.cluster.password = PASSWORD
    place.cluster.key = ""
    place.cluster.save()
    clusters.changed(place.cluster, {"key", "password"})
    assert place.read() == b"hello\n"
    assert place.server.log.count("Accepted password") == 1


def test_password_that_was_changed_there_is_refused_once_until_it_is_changed_here(
    make_place: Callable[..., Place], site: Site
) -> None:
    place = make_place(key="", password=PASSWORD)
    place.read()
    site.accounts.change_password("files-user", "second password")
    place.cut()
    for _ in range(3):
        problem = place.refusal()
        assert (problem.code, problem.transient) == ("login_refused", False)
        assert "refused the password of 'files-user'" in str(problem)
    assert place.server.log.count("Failed password") == 1
    assert LoginAttempt.objects.filter(cluster=place.cluster).count() == 2
    place.cluster.link.refresh_from_db()
    assert place.cluster.link.login_state == LoginState.REFUSED
    place.cluster.password = "second password"
    place.cluster.save()
    clusters.changed(place.cluster, {"password"})
    assert place.read() == b"hello\n"
    site.accounts.change_password("files-user", PASSWORD)


def test_ways_that_are_closed_are_told_apart(
    make_place: Callable[..., Place], settings: Settings
) -> None:
    settings.HPC_LOGINS_PER_MINUTE = 1
    place = make_place()
    place.read()
    place.cut()
    problem = place.refusal()
    assert problem.code == "logins_held_back"
    assert 0 < problem.retry_after_s <= 60
    settings.HPC_LOGINS_PER_MINUTE = 100
    host_keys.withdraw(place.cluster, [key.pk for key in place.cluster.host_keys.all()])
    assert place.refusal().code == "host_key_refused"
    host_keys.confirm(place.cluster, [key.pk for key in place.cluster.host_keys.all()])
    place.server.stop()
    problem = place.refusal()
    assert (problem.code, problem.transient) == ("host_unreachable", True)
    HpcCluster.objects.filter(pk=place.cluster.pk).update(key=crypto.Sealed("gAAAAA"))
    assert place.refusal().code == "cannot_decrypt"


def test_worker_that_stops_leaves_no_connection(
    make_place: Callable[..., Place], files_stack: stacks.Stack
) -> None:
    place = make_place()
    worker = files_stack.start_worker(queues="files")
    assert file_services.read(place.job, "stdout.log", 0, 100) == b"hello\n"
    assert place.sessions()
    files_stack.stop_worker(worker)
    assert processes.wait_until(lambda: not place.sessions(), 2)
    log = files_stack.log_of(1).read_text()
    assert "data.logged_out count=1" in log
    assert base64.b64encode(b"hello\n").decode() not in log
