"""Secrets of a run over SSH: found nowhere, and what no key opens holds up nobody else."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography.fernet import Fernet
from django.conf import global_settings
from django.contrib.auth import get_user_model
from django.db.models.functions import Now
from pytest_django import Settings

from controller import crypto, publish
from controller.lifecycle import JobStatus
from controller.models import ClusterLink, HpcCluster, LoginState, ProcedureState
from controller.project.celery import app
from controller.services import clusters, files
from ops import services, sshd
from tests import flower as flowers
from tests import leaks, web
from tests import stack as stacks

from .server_side import Portal
from .site import Site

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()
BOTH = f"{NEW},{OLD}"
DJANGO_KEY = secrets.token_hex(30)

OURS = frozenset({"old key", "new key", "Django's key", "Redis' password"})
"""What our own server processes have in their environments, and those alone: HPC_SECRET_KEYS,
DJANGO_SECRET_KEY and HPC_REDIS_URL. Only their user may read it there (/proc/PID/environ is 0400).
"""
CANARY = "canary" + secrets.token_hex(12)
PLACES = frozenset(
    {
        *("web.log", "worker1.log", "worker2.log", "flower.log", "redis.log", "sshd.log"),
        *("test.1.log", "database file", "rows", "redis keys", "redis commands"),
        *("Flower", "admin", "argv", "environ"),
    }
)
"""Everywhere that is searched; a canary is put into each of them, and must be found there."""


@pytest.fixture
def make_portal(
    short_directory: Path,
    own_redis: services.Redis,
    site: Site,
    settings: Settings,
    django_db_blocker: Any,
) -> Callable[[str], Any]:
    """Makes a server side whose processes have these HPC_SECRET_KEYS."""

    @contextmanager
    def make(keys: str) -> Iterator[Portal]:
        url = f"sqlite:///{short_directory}/db.sqlite3"
        own = {"HPC_SECRET_KEYS": keys, "DJANGO_SECRET_KEY": DJANGO_KEY, "HPC_LOG_LEVEL": "DEBUG"}
        with (
            django_db_blocker.unblock(),
            stacks.running(short_directory, own_redis, url, own) as made,
        ):
            yield Portal(made, site)

    return make


def test_what_no_key_opens_is_blocked_while_the_rest_works(
    make_portal: Any, site: Site, settings: Settings
) -> None:
    with make_portal(NEW) as portal:
        stack = portal.stack
        worker = stack.start_worker()
        settings.HPC_SECRET_KEYS = OLD
        account = site.add_account("sealed")
        foreign = portal.register(site.server(), account, name="foreign")
        settings.HPC_SECRET_KEYS = NEW
        ours = portal.register(site.server(), account, name="ours")
        for cluster in (foreign, ours):
            clusters.connect(cluster)
        stack.wait(lambda: stack.link(foreign).state == "blocked", "the foreign link to be blocked")
        blocked = stack.link(foreign)
        assert blocked.blocked_reason == "cannot_decrypt"
        assert "foreign" in blocked.blocked_detail
        assert "HPC_SECRET_KEYS" in blocked.blocked_detail
        assert blocked.login_state == LoginState.UNTRIED
        assert blocked.not_before is not None
        refused = portal.wait_over(clusters.test(foreign))
        assert (refused.state, refused.reason) == (ProcedureState.FAILED, "cannot_decrypt")
        assert "HPC_SECRET_KEYS" in refused.detail
        stack.wait_up(ours)
        job = stack.submit(ours)
        assert stack.wait_status(job).status is JobStatus.COMPLETED
        stack.stop_worker(worker)
        ClusterLink.objects.filter(pk=foreign.pk).update(not_before=Now())  # its minute is over
        stack.start_worker({"HPC_SECRET_KEYS": BOTH})
        stack.wait_up(foreign)


# The search --------------------------------------------------------------------------------------


def word_of(key: str) -> str:
    """What a private key is known by: the longest word of its lines, the outer ones left out."""
    inner = key.strip().splitlines()[2:-2]
    return max(re.findall(r"[A-Za-z0-9]+", "\n".join(inner)), key=len)


def disguised(word: str) -> str:
    """A password around the word that each of JSON, HTML, shells and URLs writes in its own way."""
    return f" {word} ü'\"\\$&<% "


class Run:
    """A portal with all its processes and a cluster behind a server of its own, searched."""

    def __init__(self, portal: Portal, site: Site, words: leaks.Words, parts: ExitStack) -> None:
        self.portal = portal
        self.stack = portal.stack
        self.commands = parts.enter_context(leaks.Commands(self.stack.redis))
        self.watch = parts.enter_context(leaks.Processes(words))
        self.stack.start_worker()
        self.stack.start_worker(queues="files")
        self.web = parts.enter_context(web.running(self.stack))
        self.flower = parts.enter_context(flowers.running(self.stack))
        self.server = site.new_server()
        self.redis = parts.enter_context(redis.Redis.from_url(self.stack.redis.url))
        self.own = {child.pid for child in (self.web.child, self.flower.child, *self.stack.workers)}
        self._at_times: list[leaks.Place] = []

    def register(self, account: sshd.Account, key: str, password: str) -> HpcCluster:
        """A cluster as an admin enters it in the browser, its host keys confirmed."""
        self.web.send(
            "/admin/hpc_job_controller/hpccluster/add/",
            "client_path",
            name=f"by-{'key' if key else 'password'}",
            host_name=self.server.address,
            port=str(self.server.port),
            carrier="ssh",
            username=account.name,
            key=key,
            password=password,
            client_path=str(account.home / "client"),
            python="/usr/bin/python3",
        )
        made = HpcCluster.objects.latest("pk")
        assert (made.key.reveal(), made.password.reveal()) == (key, password)
        self.portal.pin(made)
        return made

    def enter(self, cluster: HpcCluster, **secret: str) -> str:
        """The page after an admin has entered another key or password."""
        path = f"/admin/hpc_job_controller/hpccluster/{cluster.pk}/change/"
        page = self.web.send(path, "client_path", **secret)
        cluster.refresh_from_db()
        return page

    def command(self, *words: str, **environment: str) -> str:
        """What a command of the operator prints."""
        process = subprocess.Popen(
            [sys.executable, "manage.py", "hpc", *words],
            cwd=stacks.CHECKOUT,
            env=self.stack.environment(environment),
            stdout=subprocess.PIPE,
            text=True,
        )
        self.own.add(process.pid)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        return out

    def look(self) -> None:
        """Read what is in Redis and Flower only for a while."""
        self._at_times += [*leaks.redis_keys(self.redis), *self._flower()]

    def logs(self, account: sshd.Account) -> dict[str, Path]:
        """All logs by name."""
        found = [*self.stack.directory.glob("*.log"), self.stack.redis.log_path]
        found += [self.server.directory / "sshd.log", *account.home.glob("client/log/*.log")]
        return {path.name: path for path in found}

    def places(self, account: sshd.Account) -> Iterator[leaks.Place]:
        """Everything but the processes."""
        for name, path in self.logs(account).items():
            yield from leaks.texts(name, [path])
        yield from leaks.texts("database file", self.stack.directory.glob("db.sqlite3*"))
        yield from leaks.rows()
        yield from self.commands.places()
        yield from self._at_times
        yield from leaks.redis_keys(self.redis)
        yield from self._flower()
        yield from (("admin", page.encode()) for page in self.web.seen)

    def _flower(self) -> Iterator[leaks.Place]:
        return (("Flower", text.encode()) for _, text in self.flower.pages())


def use(run: Run, cluster: HpcCluster) -> None:
    """Test, bootstrap and link the cluster, run a job there, look at its files."""
    for ask in (clusters.test, clusters.bootstrap):
        procedure = run.portal.wait_over(ask(cluster), 30)
        assert procedure.state == ProcedureState.DONE, procedure.detail
    clusters.connect(cluster)
    run.stack.wait_up(cluster)
    job = run.stack.submit(cluster, run.stack.script(seconds=0.3))
    assert run.stack.wait_status(job).status is JobStatus.COMPLETED
    assert files.list_directory(job)["entries"]
    assert files.read(job, files.STDOUT, 0, 100) == b"hello\n"


def plant(run: Run, account: sshd.Account) -> None:
    """Put the canary into every place."""
    HpcCluster.objects.create(
        name="canary", host_name="h", client_path="/x", setup_commands=f": {CANARY}"
    )
    run.web.get(
        f"/admin/hpc_job_controller/hpccluster/{HpcCluster.objects.latest('pk').pk}/change/"
    )
    run.redis.set("canary", CANARY)
    app.send_task(publish.DISCONNECT, args=[CANARY], queue=publish.QUEUE)
    run.stack.wait(lambda: CANARY in run.flower.ask("/api/tasks")[1], "Flower to show the canary")
    for path in run.logs(account).values():
        with path.open("a") as file:
            file.write(f"{CANARY}\n")
    seen = {"argv", "environ"}
    with subprocess.Popen(
        [sys.executable, "-c", "input()", CANARY], env={"NAME": CANARY}, stdin=subprocess.PIPE
    ) as process:
        run.stack.wait(
            lambda: {one.place for one in run.watch.shown() if one.name == "canary"} == seen,
            "the canary to be seen in a process",
        )
        process.communicate(b"\n", timeout=10)


@pytest.mark.timeout(180)
def test_a_full_run_shows_no_secret_anywhere(
    make_portal: Any, own_redis: services.Redis, site: Site, settings: Settings
) -> None:
    password, passphrase, wrong, admin = (secrets.token_hex(12) for _ in range(4))
    key = site.user_key("ed25519", passphrase=disguised(passphrase)).read_text()
    account = site.add_account("secretive", password=disguised(password))
    words = leaks.Words(
        {
            "the SSH password": password,
            "a wrong password": wrong,
            "the passphrase": passphrase,
            "the private key": word_of(key),
            "the admin's password": admin,
            "old key": OLD.rstrip("="),
            "new key": NEW.rstrip("="),
            "Django's key": DJANGO_KEY,
            "Redis' password": own_redis.password,
            "canary": CANARY,
        }
    )
    settings.HPC_SECRET_KEYS = f"{OLD},{NEW}"
    settings.PASSWORD_HASHERS = global_settings.PASSWORD_HASHERS  # those of the web process
    with make_portal(f"{OLD},{NEW}") as portal, ExitStack() as parts:
        run = Run(portal, site, words, parts)
        get_user_model().objects.create_superuser("admin", password=admin)
        run.web.log_in("admin", admin)
        by_key = run.register(account, key, disguised(passphrase))
        by_password = run.register(account, "", disguised(password))
        use(run, by_key)
        run.look()
        assert "does not open the private key" in run.enter(by_key, password=disguised(wrong))
        run.enter(by_password, password=disguised(wrong))
        refused = portal.wait_over(clusters.test(by_password))
        assert refused.reason == "login_refused", refused.detail
        run.enter(by_password, password=disguised(password))
        assert portal.wait_over(clusters.test(by_password)).state == ProcedureState.DONE
        assert "anew with the newest key: 3" in run.command(
            "secrets", "rotate", HPC_SECRET_KEYS=BOTH
        )
        by_key.refresh_from_db()
        settings.HPC_SECRET_KEYS = BOTH
        assert crypto.opener(by_key.key.token) == 0
        plant(run, account)
        found = words.find(run.places(account))
        found |= {(one.place, one.name) for one in run.watch.shown(run.own, OURS)}
        assert {place for place, name in found if name == "canary"} == PLACES
        assert {find for find in found if find[1] != "canary"} == set()
        in_ours = {one for one in run.watch.shown() if one.name in OURS}
        assert {one.pid for one in in_ours} == run.own
        assert {(one.uid, one.mode) for one in in_ours} == {(os.geteuid(), 0o400)}
