"""Clusters reached over SSH by real workers: logged in to, bootstrapped with steps, held."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controller.lifecycle import JobStatus
from controller.models import DaemonMode, HpcCluster, Kind, LoginState, Procedure, ProcedureState
from controller.services import clusters, procedures
from ops import processes, services, sshd
from tests import stack as stacks

from .server_side import Portal, told
from .site import NARROW, PASSWORD, Site

NAMES = """\
127.0.0.1 localhost
127.0.0.2 login1 login.cluster
127.0.0.3 login2 login.cluster
"""
MANY = {"HPC_LOGINS_PER_MINUTE": "600", "HPC_LOGINS_PER_HOUR": "6000"}
"""Logins that these tests may make to one cluster."""


@pytest.fixture(scope="module")
def portal(
    request: pytest.FixtureRequest, site: Site, test_database: str, django_db_blocker: Any
) -> Iterator[Portal]:
    """Two workers, on a machine that knows the names of some login nodes."""
    directory = Path(tempfile.mkdtemp(prefix="hpc-t-", dir="/tmp"))
    machine = sshd.Accounts(directory / "machine")
    machine.put("hosts", NAMES)
    redis = services.Redis(directory / "redis", with_port=True)
    redis.start()
    url = f"sqlite:///{directory}/db.sqlite3"
    if test_database == "postgresql":
        url = request.getfixturevalue("postgres_server").create_database(directory.name[6:])
    try:
        with django_db_blocker.unblock(), stacks.running(directory, redis, url, MANY) as made:
            portal = Portal(made, site, machine)
            for _ in range(2):
                portal.start_worker()
            yield portal
    finally:
        redis.stop()
        shutil.rmtree(directory)


@dataclass
class Refused:
    """A cluster whose password is wrong, and when that was found out."""

    cluster: HpcCluster
    server: sshd.Sshd
    since: float


@pytest.fixture(scope="module")
def refused(portal: Portal, site: Site) -> Refused:
    server = site.new_server()
    account = site.add_account("mistyped", password=PASSWORD)
    cluster = portal.register(server, account, key="", password="not " + PASSWORD)
    clusters.connect(cluster)
    portal.blocked(cluster)
    return Refused(cluster, server, time.monotonic())


@dataclass
class Line:
    """A cluster on a narrow server of its own, and its first bootstrap."""

    cluster: HpcCluster
    server: sshd.Sshd
    procedure: Procedure


@pytest.fixture(scope="module")
def line(portal: Portal, site: Site) -> Line:
    server = site.new_server(NARROW)
    return Line(*_linked(portal, site, server))


def _linked(
    portal: Portal, site: Site, server: sshd.Sshd
) -> tuple[HpcCluster, sshd.Sshd, Procedure]:
    cluster, procedure = portal.linked(server, site.add_account("line"))
    return cluster, server, procedure


def test_refused_password_waits_for_a_person(refused: Refused, portal: Portal) -> None:
    link = portal.stack.link(refused.cluster)
    assert (link.blocked_reason, link.login_state) == ("login_refused", LoginState.REFUSED)
    assert "Check user name and password" in link.blocked_detail


def test_registered_cluster_is_bootstrapped_and_runs_a_job(line: Line, portal: Portal) -> None:
    assert told(line.procedure) == {
        "Log in": "done",
        "Look for the daemon": "done",
        "Look at the client": "done",
        "Upload the client": "done",
        "Start the daemon": "done",
        "Log out and look for the daemon": "done",
        "Greet the daemon": "done",
    }
    assert sum(step.took_s for step in line.procedure.steps.all()) < 30
    link = portal.stack.link(line.cluster)
    assert (link.address, link.login_state) == ("127.0.0.1", LoginState.GOOD)
    assert link.outlives_login_on == os.uname().nodename
    job = portal.stack.submit(line.cluster, "#!/bin/sh\nid -un\n")
    assert portal.stack.wait_status(job).status is JobStatus.COMPLETED


def test_second_bootstrap_changes_nothing(line: Line, portal: Portal) -> None:
    before = portal.stack.link(line.cluster)
    begun_at = time.monotonic()
    procedure = portal.wait_over(clusters.bootstrap(line.cluster), 9)
    assert time.monotonic() - begun_at < 9
    assert procedure.state == ProcedureState.DONE, procedure.detail
    assert told(procedure) == {
        "Log in": "done",
        "Look for the daemon": "done",
        "Look at the client": "done",
        "Upload the client": "skipped",
        "Greet the daemon": "done",
    }
    after = portal.stack.wait_up(line.cluster)
    assert (after.daemon_pid, after.generation) == (before.daemon_pid, before.generation)
    logins = line.cluster.logins.filter(outcome="good").count()
    assert line.server.log.count("Accepted publickey") == logins


def test_lost_nudges_cost_a_moment(line: Line, portal: Portal) -> None:
    asked = [procedures.request(line.cluster, kind) for kind in Kind]
    for procedure in asked:
        portal.wait_over(procedure)
        assert procedure.state == ProcedureState.DONE, procedure.detail
    keys, test, bootstrap = asked
    assert told(keys) == {"Resolve the host": "done", "Fetch from 127.0.0.1": "done"}
    assert keys.detail == "No new key; 3 are known."
    assert told(test) == {"Log in": "done", "Run a command": "done", "Look at the client": "done"}
    assert "round trip" in test.detail
    assert told(bootstrap)["Greet the daemon"] == "done"


def test_changed_host_key_is_refused_until_a_person_confirms_it(
    line: Line, portal: Portal, site: Site
) -> None:
    before = len(portal.procedures(line.cluster))
    line.server.stop()
    other = sshd.make_key(site.directory / "host-anew", "ed25519")
    changed = site.new_server(keys=[other], port=line.server.port)
    link = portal.blocked(line.cluster)
    assert link.blocked_reason == "host_key_changed"
    assert "HAS CHANGED" in link.blocked_detail
    assert "Accepted" not in changed.log
    portal.pin(line.cluster)
    portal.stack.wait_up(line.cluster)
    assert len(portal.procedures(line.cluster)) == before  # nothing was changed on the cluster


def test_login_that_takes_its_processes_along_makes_the_cluster_attached(
    portal: Portal, site: Site
) -> None:
    account = site.add_account("swept")
    site.end_at_log_out(account)
    cluster, procedure = portal.linked(site.server(), account)
    cluster.refresh_from_db()
    assert cluster.mode == DaemonMode.ATTACHED
    assert "attached" in procedure.detail
    assert "attached" in portal.stack.link(cluster).blocked_detail
    job = portal.stack.submit(cluster, "#!/bin/sh\nid -un\n")
    assert portal.stack.wait_status(job).status is JobStatus.COMPLETED
    again = portal.wait_over(clusters.bootstrap(cluster))
    assert again.state == ProcedureState.DONE, again.detail
    portal.stack.wait_up(cluster)


def test_daemon_on_another_login_node_is_found_or_moved(portal: Portal, site: Site) -> None:
    keys = [sshd.make_key(site.directory / f"host-login{n}", "ed25519") for n in (1, 2)]
    first = site.new_server(keys=keys[:1], address="127.0.0.2", host_name="login1")
    second = site.new_server(
        keys=keys[1:], address="127.0.0.3", host_name="login2", port=first.port
    )
    cluster, _ = portal.linked(first, site.add_account("roaming"), host_name="login.cluster")
    assert cluster.host_keys.exclude(confirmed_at=None).count() == 2
    here = portal.stack.link(cluster)
    nodes = {"127.0.0.2": ("login1", first), "127.0.0.3": ("login2", second)}
    (host, server) = nodes.pop(here.address)
    ((there, (other_host, _)),) = nodes.items()
    assert here.daemon_host == host
    # Led to the other node, the link is made to the one with the daemon.
    clusters.disconnect(cluster)
    portal.stack.wait(lambda: not portal.stack.link(cluster).holder, "the link to be let go")
    assert processes.wait_until(lambda: len(sshd.family(server)) == 1, 5), "a login is left"
    portal.prefer(cluster, there)
    clusters.connect(cluster)
    found = portal.stack.wait_up(cluster)
    assert (found.address, found.daemon_pid) == (here.address, here.daemon_pid)
    # That node is gone: the daemon is moved after three tries.
    server.stop()
    portal.stack.wait(
        lambda: portal.stack.link(cluster).daemon_host == other_host, "the daemon to be moved"
    )
    moved = portal.stack.wait_up(cluster)
    assert (moved.address, moved.generation) == (there, here.generation + 1)
    assert moved.moved_at is not None
    assert portal.has_ended(here.daemon_pid)


def test_unreachable_host_fails_what_was_asked_for_and_no_more(portal: Portal, site: Site) -> None:
    server = site.new_server()
    cluster = portal.register(server, site.add_account("unreached"))
    server.stop()
    procedure = portal.wait_over(clusters.bootstrap(cluster))
    assert (procedure.state, procedure.reason) == (ProcedureState.FAILED, "host_unreachable")
    assert told(procedure) == {"Log in": "failed"}
    link = portal.stack.link(cluster)
    assert (link.blocked_reason, link.blocked_detail) == (procedure.reason, procedure.detail)
    portal.stack.wait(lambda: not portal.stack.link(cluster).bootstrap_requested_at, "the answer")


def test_worker_killed_in_the_middle_gives_way_to_the_next(portal: Portal, site: Site) -> None:
    account = site.add_account("interrupted")
    slow = account.home / "slow"
    slow.touch()
    start_up = account.home / ".bashrc"
    start_up.write_text(f"[ ! -e {slow} ] || sleep 30\n")
    site.give(account, account.home)
    cluster = portal.register(site.server(), account)
    procedure = clusters.bootstrap(cluster)
    clusters.connect(cluster)
    portal.stack.wait(lambda: "Log in" in told(procedure), "the login")
    os.kill(portal.holder_pid(cluster), signal.SIGKILL)
    slow.unlink()
    portal.start_worker()
    portal.stack.wait_up(cluster)
    procedure.refresh_from_db()
    assert (procedure.state, procedure.reason) == (ProcedureState.FAILED, "worker_gone")
    portal.stack.wait(lambda: len(portal.procedures(cluster)) == 2, "the next procedure")
    portal.wait_over(portal.procedures(cluster)[1])
    assert portal.procedures(cluster)[1].state == ProcedureState.DONE


def test_refused_password_was_tried_once_and_the_right_one_is_at_once(
    refused: Refused, portal: Portal
) -> None:
    time.sleep(max(0.0, refused.since + 10 - time.monotonic()))  # that nothing happens takes time
    assert refused.server.log.count("Failed password") == 1
    clusters.change(refused.cluster, password=PASSWORD)
    clusters.connect(refused.cluster)
    portal.stack.wait_up(refused.cluster)
    assert refused.server.log.count("Failed password") == 1
