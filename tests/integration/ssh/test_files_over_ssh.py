"""Questions about files over a real sshd: one login for many, and what becomes of it."""

from __future__ import annotations

import base64
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from controller import crypto, errors, publish
from controller.models import HpcCluster, HpcJob, LoginAttempt, LoginState
from controller.services import clusters, host_keys
from controller.services import files as file_services
from ops import processes, services, sshd
from tests import stack as stacks
from tests.integration.controller.test_concurrency import at_once
from workers.links import bridge, client_archive, upload
from workers.operations import data_links, files

from .site import Site

PASSWORD = "first password"


@pytest.fixture(scope="module")
def stack(django_db_blocker: Any) -> Iterator[stacks.Stack]:
    """Database and Redis for the whole module; no worker holds a link here."""
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


class Place:
    """One account with a client, one server that nobody else uses, and a job that left a file."""

    def __init__(self, site: Site, server: sshd.Sshd, account: sshd.Account, **fields: Any) -> None:
        self.site = site
        self.server = server
        self.account = account
        self.cluster: HpcCluster = clusters.register(
            **{
                "name": account.name,
                "host_name": server.address,
                "port": server.port,
                "carrier": "ssh",
                "username": account.name,
                "key": site.key.read_text(),
                "client_path": str(account.home / "client"),
                "python": "/usr/bin/python3",
                **fields,
            }
        )
        shown = [(pin.key_type, pin.fingerprint, server.address) for pin in site.pins()]
        host_keys.record(self.cluster.pk, shown)
        host_keys.confirm(self.cluster, [key.pk for key in self.cluster.host_keys.all()])
        self.job = HpcJob.objects.create(cluster=self.cluster, attempt=1)
        self._make_files()

    def _make_files(self) -> None:
        directory = self.account.home / "client" / "jobs" / self.job.tag
        directory.mkdir(parents=True)
        (directory / "stdout.log").write_text("hello\n")
        self.site.give(self.account, self.account.home)

    def read(self) -> bytes:
        return base64.b64decode(files.read(self.job.pk, "stdout.log", 0, 100)["data_b64"])

    def refusal(self) -> errors.HpcError:
        """What a portal hears of a question that fails."""
        with pytest.raises(errors.HpcError) as caught:
            publish._unpacked(files.answer(lambda: {"read": self.read()}))
        return caught.value

    @property
    def logins(self) -> tuple[int, int]:
        """Counted here, and by the server."""
        accepted = self.server.log.count("Accepted publickey")
        return LoginAttempt.objects.filter(cluster=self.cluster).count(), accepted

    def sessions(self) -> list[int]:
        """The server's processes for those who are logged in."""
        assert self.server.child is not None
        return sshd.family(self.server)[1:]

    def clients(self) -> list[int]:
        """The processes that serve files."""
        words = f"\0files\0test.{self.cluster.pk}\0".encode()
        return [
            pid for pid in self.sessions() if words in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]

    def cut(self) -> None:
        """End each session on the server's side, as an admin does."""
        for pid in self.sessions():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def home(site: Site, archive: client_archive.Archive) -> sshd.Account:
    """An account with a client in its home directory."""
    account = site.add_account("files-user", password=PASSWORD)
    with site.carrier(site.server(), account.name) as carrier:
        upload.put(carrier, bridge.Installation(str(account.home / "client")), archive)
    return account


@pytest.fixture
def make(stack: stacks.Stack, site: Site, home: sshd.Account) -> Iterator[Callable[..., Place]]:
    def one(options: dict[str, str] | None = None, **fields: Any) -> Place:
        return Place(site, site.new_server(options), home, **fields)

    yield one
    files.close()
    HpcJob.objects.all().delete()
    HpcCluster.objects.all().delete()


def test_twenty_questions_cost_one_login(make: Callable[..., Place]) -> None:
    place = make()
    for _ in range(10):
        assert place.read() == b"hello\n"
        assert files.stat(place.job.pk, "stdout.log")["size_bytes"] == 6
    assert place.logins == (1, 1)
    assert place.cluster.logins.get().purpose == "files"


@pytest.mark.parametrize(("sessions", "questions"), [(10, 12), (1, 4)])
def test_many_at_once_share_one_login(
    make: Callable[..., Place], settings: Settings, sessions: int, questions: int
) -> None:
    settings.HPC_FILES_PARALLEL = 12
    place = make({"MaxSessions": str(sessions)})
    assert at_once(*[place.read] * questions) == [b"hello\n"] * questions
    assert place.logins == (1, 1)


def test_connection_that_ended_meanwhile_is_made_anew(make: Callable[..., Place]) -> None:
    place = make()
    place.read()
    place.cut()
    assert place.read() == b"hello\n"
    assert place.logins == (2, 2)


def test_question_whose_connection_dies_under_it_is_asked_once_more(
    make: Callable[..., Place],
) -> None:
    place = make()
    place.read()
    for pid in place.sessions():
        os.kill(pid, signal.SIGSTOP)

    def cut() -> None:
        assert processes.wait_until(lambda: files.seats.taken_of(place.cluster.pk) == 1, 10)
        place.cut()

    assert at_once(place.read, cut)[0] == b"hello\n"
    assert place.logins == (2, 2)


def test_client_that_was_ended_on_the_cluster_is_started_anew(make: Callable[..., Place]) -> None:
    place = make()
    place.read()
    (client,) = place.clients()
    os.kill(client, signal.SIGKILL)
    assert place.read() == b"hello\n"
    assert client not in place.clients()
    assert place.logins == (1, 1)


def test_idle_connection_is_logged_out(make: Callable[..., Place], settings: Settings) -> None:
    settings.HPC_DATA_IDLE_S = 0.2
    place = make()
    place.read()
    assert processes.wait_until(lambda: not place.sessions(), 10)
    assert data_links.connections.count() == 0
    assert place.read() == b"hello\n"
    assert place.logins == (2, 2)


def test_change_of_the_row_makes_a_new_connection(make: Callable[..., Place]) -> None:
    place = make()
    place.read()
    place.cluster.password = PASSWORD
    place.cluster.key = ""
    place.cluster.save()
    clusters.changed(place.cluster, {"key", "password"})
    assert place.read() == b"hello\n"
    assert place.server.log.count("Accepted password") == 1


def test_password_that_was_changed_there_is_refused_once_until_it_is_changed_here(
    make: Callable[..., Place], site: Site
) -> None:
    place = make(key="", password=PASSWORD)
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
    make: Callable[..., Place], settings: Settings
) -> None:
    settings.HPC_LOGINS_PER_MINUTE = 1
    place = make()
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
    make: Callable[..., Place], stack: stacks.Stack
) -> None:
    place = make()
    worker = stack.start_worker(queues="files")
    assert file_services.read(place.job, "stdout.log", 0, 100) == b"hello\n"
    assert place.sessions()
    stack.stop_worker(worker)
    assert processes.wait_until(lambda: not place.sessions(), 2)
    log = stack.log_of(1).read_text()
    assert "data.logged_out count=1" in log
    assert base64.b64encode(b"hello\n").decode() not in log
