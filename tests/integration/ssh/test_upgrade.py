"""A newer client takes the place of a running one; the older comes back if it is no good."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster_client.protocol import messages
from ops import processes
from tests.archives import doctored
from workers.links import (
    bridge,
    carriers,
    client_archive,
    clock,
    data,
    errors,
    upgrade,
    upload,
)
from workers.operations import connecting

from .clusters import KEY, Cluster, World, greeted, install_by_hand

HELLO = messages.Hello(messages.VERSIONS, "portal", 1, epoch=1, generation=1)
VERSIONS = "cluster_client/protocol/messages.py", "VERSIONS = (1,)"
SLOW_SUBMIT = (
    "cluster_client/local_jobs.py",
    "    print(claimant or own)",
    "    while not os.path.exists(os.path.join(directory, 'told')): time.sleep(0.05)\n"
    "    print(claimant or own)",
)
"""A scheduler that has taken a job and says so only later."""
MUTE = "cluster_client/handlers.py", "self._reply(request, self._greet(request.message))", "..."


ALL_STEPS = (
    "Log in",
    "Look for the daemon",
    "Look at the client",
    "Upload the client",
    "Start the daemon",
    "Greet the daemon",
)


@pytest.fixture(scope="module")
def older(archive: client_archive.Archive) -> client_archive.Archive:
    """Of the release before, so to speak, on a cluster whose scheduler takes its time."""
    return doctored(archive, SLOW_SUBMIT)


class Server:
    """What a worker does to one cluster, with the generations that it issues."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.generation = 0
        self.before_start: Callable[[], None] | None = None

    def start(self, carrier: carriers.Carrier) -> carriers.Channel:
        """A new daemon in any case, and a channel to it."""
        if self.before_start is not None:
            self.before_start()
        self.generation += 1
        document = {**self.cluster.plan().document, "generation": self.generation}
        said = bridge.start_daemon(carrier, self.cluster.installation, KEY, document, 60)
        if said["status"] != "started":
            raise errors.CannotConnect(str(said["code"]), str(said["detail"]))
        return self.dial(carrier)

    def dial(self, carrier: carriers.Carrier) -> carriers.Channel:
        installation = self.cluster.installation
        channel, marker = bridge.open_client(carrier, installation, ("dial", KEY), 20)
        assert marker.status == "connected", marker
        return channel

    def put(self, archive: client_archive.Archive) -> None:
        """As an earlier bootstrap left it: the archive, and a daemon that runs from it."""
        with self.cluster.carrier() as carrier:
            upload.put(carrier, self.cluster.installation, archive)
            self.start(carrier).close()

    def upgrade(
        self, archive: client_archive.Archive, *, is_requested: bool = True, limit_s: float = 10.0
    ) -> upgrade.Outcome:
        with self.cluster.carrier() as carrier:
            return upgrade.upgrade(
                carrier,
                self.cluster.installation,
                KEY,
                start=lambda: self.start(carrier),
                hello=HELLO,
                is_requested=is_requested,
                record=self.cluster.steps.append,
                build=lambda: archive,
                greeting_limit_s=limit_s,
            )

    def reach(self, *, is_asked: bool) -> tuple[str, int]:
        """Build and generation that the link of a worker greets."""
        world = Issuing(self)
        approach = connecting.Approach(
            self.cluster.plan(), world, is_asked=is_asked, is_forced=False
        )
        with greeted(approach.run()[0]) as (_, _, welcome):
            return welcome.build_hash, welcome.generation

    def serving(self) -> tuple[str, int]:
        """Build and generation of the daemon."""
        daemon = self.cluster.status()["daemon"]
        return daemon["build_hash"], daemon["generation"]

    def outcomes(self) -> dict[str, str]:
        """Of the steps since the last call."""
        steps, self.cluster.steps[:] = list(self.cluster.steps), []
        return {step.name: step.outcome for step in steps}


class Issuing(World):
    """With the generations of its server."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.cluster)
        self._server = server

    def issue(self) -> int:
        self._server.generation += 1
        return self._server.generation


@pytest.fixture
def server(make: Callable[..., Cluster], request: pytest.FixtureRequest) -> Server:
    name = request.node.name.replace("test_", "")
    return Server(make("u-" + hashlib.sha256(name.encode()).hexdigest()[:12]))


def submit(tag: str, script: str) -> messages.Submit:
    return messages.Submit(tag, 1, script, hashlib.sha256(script.encode()).hexdigest())


def tell(jobs: Path, tag: str) -> None:
    """Let the slow scheduler say that it has the job."""
    directory = jobs / tag
    assert processes.wait_until((directory / ".hpc" / "claim").exists, 20)
    (directory / "told").touch()


def test_an_upgrade_harms_no_job_and_loses_no_event(
    server: Server, older: client_archive.Archive, archive: client_archive.Archive
) -> None:
    server.put(older)
    home, jobs = server.cluster.account.home, server.cluster.path / "jobs"
    script = f"#!/bin/sh\necho once >> {home}/ran\nuntil [ -e {home}/go ]; do sleep 0.1; done\n"
    running, in_flight = "ja" + "a" * 13, "jb" + "b" * 13
    with server.cluster.carrier() as carrier:
        with greeted(server.dial(carrier)) as (link, _, welcome):
            asked = link.ask(submit(running, script), 30)
            tell(jobs, running)
            answer = asked.wait()
            assert isinstance(answer, messages.Submitted), answer
            link.ask(submit(in_flight, script), 30)
            claim = jobs / in_flight / ".hpc" / "claim"
            assert processes.wait_until(claim.exists, 20)
        # The scheduler has the second one and has not said so; nothing was acknowledged.
        log = server.cluster.path / "log" / f"{KEY}.log"
        drained = threading.Thread(
            target=lambda: (
                processes.wait_until(lambda: "daemon_ends" in log.read_text(), 60)
                and tell(jobs, in_flight)
            )
        )
        drained.start()
        outcome = server.upgrade(archive)
        drained.join()
        assert (outcome.is_changed, outcome.reason) == (True, "")
        assert server.serving() == (archive.build_hash, 2)
        with greeted(server.dial(carrier)) as (link, listener, again):
            assert again.outbox_id == welcome.outbox_id
            assert "retired: generation 2 took over" in again.last_death
            compared = link.ask(messages.Compare((running, in_flight)), 10).wait()
            ids = {job.tag: job.scheduler_job_id for job in compared.jobs}
            assert claim.read_text().split()[0] == ids[in_flight]
            answer = link.ask(submit(in_flight, script), 30).wait()
            assert answer == messages.Submitted(in_flight, ids[in_flight])
            (home / "go").touch()
            assert processes.wait_until(lambda: listener.kinds().count("ended") == 2, 20)
            told = [(event.tag, event.kind) for event in listener.events]
    assert (home / "ran").read_text() == "once\n" * 2
    assert [told.count((tag, "submitted")) for tag in (running, in_flight)] == [1, 1]
    assert [event.seq for event in listener.events] == list(range(1, len(told) + 1))
    # The older daemon stored the id itself: nobody had to look the job up.
    journal = server.cluster.path / "state" / KEY / "gen-1" / "journal"
    assert ids[in_flight] in journal.read_text()


def test_an_upgrade_twice_changes_nothing(
    server: Server, older: client_archive.Archive, archive: client_archive.Archive
) -> None:
    assert server.upgrade(older).is_changed
    assert server.outcomes() == {"Look at the client": "done", "Upload the client": "done"}
    with server.cluster.carrier() as carrier:
        server.start(carrier).close()
    # Nobody has asked, and it fits: a worker of another release leaves it alone.
    assert not server.upgrade(archive, is_requested=False).is_changed
    assert server.reach(is_asked=False) == (older.build_hash, 1)
    assert "Upload the client" not in server.outcomes()
    assert server.reach(is_asked=True) == (archive.build_hash, 2)
    assert server.outcomes() == dict.fromkeys(ALL_STEPS, "done")
    assert server.reach(is_asked=True) == (archive.build_hash, 2)
    assert server.outcomes() == dict.fromkeys(ALL_STEPS[:3], "done") | {
        "Upload the client": "skipped"
    }
    kept = {path.name for path in server.cluster.path.glob("*.pyz")}
    assert kept == {older.name, archive.name}


def test_the_one_before_comes_back_if_the_new_one_does_not_greet(
    server: Server, archive: client_archive.Archive
) -> None:
    server.put(archive)
    bad = doctored(archive, MUTE)
    outcome = server.upgrade(bad, limit_s=1.0)
    assert (outcome.is_changed, outcome.reason) == (False, "upgrade_failed")
    assert bad.name in outcome.detail
    assert f"{archive.name}, runs again" in outcome.detail
    assert server.outcomes()["Go back to the client before"] == "done"
    assert server.serving() == (archive.build_hash, 3)
    # Whoever connects next finds the older one and does not try the new one again.
    assert not server.upgrade(bad, is_requested=False).is_changed
    assert server.serving() == (archive.build_hash, 3)
    assert (server.cluster.path / "current").read_text().split()[0] == archive.name


def test_a_start_that_fails_leaves_what_runs_alone(
    server: Server, older: client_archive.Archive, archive: client_archive.Archive
) -> None:
    site = server.cluster.site
    server.generation = 7
    server.put(older)
    server.generation = 1  # a database from a backup: the client refuses, and tells the newest
    outcome = server.upgrade(archive)
    assert outcome.reason == "upgrade_failed"
    assert "too old to start" in outcome.detail
    assert server.serving() == (older.build_hash, 8)
    assert (server.cluster.path / "current").read_text().split()[0] == older.name
    # A connection that breaks says nothing of a client: there is no going back, and no verdict.
    server.generation = 8
    server.cluster.server = site.new_server()
    server.before_start = server.cluster.server.stop
    with pytest.raises(errors.CannotConnect) as caught:
        server.upgrade(archive)
    assert caught.value.reason in ("ssh_broken", "host_unreachable")
    server.cluster.server, server.before_start = site.server(), None
    assert server.serving() == (older.build_hash, 8)
    assert server.upgrade(archive) == upgrade.Outcome(is_changed=True)
    assert server.serving()[0] == archive.build_hash


def test_a_client_newer_than_this_server_is_replaced_on_request_alone(
    server: Server, archive: client_archive.Archive
) -> None:
    newer = doctored(archive, (*VERSIONS, "VERSIONS = (99,)"))
    server.put(newer)
    with server.cluster.carrier() as carrier:
        channel, marker = bridge.open_client(
            carrier, server.cluster.installation, ("dial", KEY), 20
        )
        with pytest.raises(errors.CannotConnect) as refused:
            data.DataLink(channel, HELLO, clock.now() + 10)
        channel.close()
    assert (refused.value.reason, marker.build_hash) == ("version_mismatch", newer.build_hash)
    assert upgrade.skew(marker.versions) is upgrade.Skew.NEWER
    with pytest.raises(errors.CannotConnect, match="newer than this server") as caught:
        server.upgrade(archive, is_requested=False)
    assert (caught.value.reason, caught.value.transient) == ("incompatible", False)
    assert server.serving() == (newer.build_hash, 1)
    assert server.upgrade(archive).is_changed
    assert server.serving() == (archive.build_hash, 2)


def test_a_client_that_is_too_old_is_replaced_unasked(
    server: Server, archive: client_archive.Archive
) -> None:
    with server.cluster.carrier() as carrier:
        older = doctored(archive, (*VERSIONS, "VERSIONS = (0,)"))
        upload.put(carrier, server.cluster.installation, older)
    # Where that fails it watches the jobs again, and waits for a person: not for a timer.
    with pytest.raises(errors.CannotConnect, match="runs again") as caught:
        server.upgrade(doctored(archive, MUTE), is_requested=False, limit_s=1.0)
    assert (caught.value.reason, caught.value.transient) == ("upgrade_failed", False)
    assert server.serving() == (older.build_hash, 2)
    assert server.upgrade(archive, is_requested=False).is_changed
    assert server.serving() == (archive.build_hash, 3)


def test_an_installation_by_hand_is_a_persons_to_update(
    server: Server, archive: client_archive.Archive
) -> None:
    path = server.cluster.path
    install_by_hand(server.cluster)
    with server.cluster.carrier() as carrier:
        server.start(carrier).close()
    assert not server.upgrade(archive).is_changed
    # The person updates it: the next bootstrap starts the daemon anew.
    file = path / "errors.py"
    file.write_text(file.read_text() + "# newer\n")
    assert not server.upgrade(archive, is_requested=False).is_changed
    assert server.serving()[1] == 1
    assert server.upgrade(archive).is_changed
    assert server.serving()[1] == 2
    # To a release that is none of ours: a sentence, whoever asks.
    file = path / "protocol" / "messages.py"
    file.write_text(file.read_text().replace(VERSIONS[1], "VERSIONS = (99,)"))
    files = sorted(path.rglob("*.py"))
    for is_requested in (False, True):
        with pytest.raises(errors.CannotConnect, match="installed by hand") as caught:
            server.upgrade(archive, is_requested=is_requested)
        assert (caught.value.reason, caught.value.transient) == ("incompatible", False)
        assert str(path) in str(caught.value)
    assert sorted(path.rglob("*.py")) == files
    assert not list(path.glob("*.pyz"))
    assert server.generation == 2
