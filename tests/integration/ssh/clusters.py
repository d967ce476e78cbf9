"""A cluster account on one server, and what a worker does with it: bring up, greet, run a job."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster_client.protocol import messages
from ops import processes, sshd
from workers.links import (
    bridge,
    carriers,
    client_archive,
    connection,
    ssh_carrier,
    steps,
    upgrade,
    watchdog,
)
from workers.operations import bootstrap, connecting

from .site import Site

CHECKOUT = Path(__file__).parents[3]
KEY = "portal.1"
QUICK = {
    "HPC_SCHEDULER_CLASS": "local",
    "HPC_POLL_INTERVAL_S": 0.5,
    "HPC_HINT_INTERVAL_S": 0.1,
}


class Cluster:
    """One account on one server, and a plan for it."""

    def __init__(
        self, site: Site, server: sshd.Sshd, account: sshd.Account, place: str = "client"
    ) -> None:
        self.site = site
        self.server = server
        self.account = account
        self.path = account.home / place
        self.installation = bridge.Installation(str(self.path))
        self.steps: list[steps.Step] = []

    def carrier(self, **options: object) -> ssh_carrier.SshCarrier:
        return self.site.carrier(self.server, self.account.name, **options)

    def plan(self, *, is_attached: bool = False) -> bootstrap.Plan:
        document = {
            "instance_id": "portal",
            "cluster_id": 1,
            "settings": {**QUICK, "HPC_DAEMON_PID_FILE": str(self.account.home / "pid")},
            "setup_commands": self.installation.setup_commands,
            "umask": "0077",
            "group": "",
        }
        return bootstrap.Plan(
            1,
            KEY,
            "ssh",
            self.installation,
            is_attached,
            document,
            proven_host=os.uname().nodename,
        )

    def status(self) -> dict[str, Any]:
        """What the daemon says of itself."""
        with self.carrier() as carrier:
            done = carrier.run(self.installation.command("status", KEY, "--json"))
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def stop(self) -> None:
        with self.carrier() as carrier:
            assert carrier.run(self.installation.command("stop", KEY)).status == 0


class World:
    """Of a cluster that no database knows; see world.World."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.record = cluster.steps.append

    def carrier(self, address: str) -> ssh_carrier.SshCarrier:
        return self._cluster.carrier(address=address)

    def issue(self) -> int:
        return 1

    def hello(self) -> messages.Hello:
        return messages.Hello(messages.VERSIONS, "portal", 1, epoch=1, generation=1)

    def upgraded(self, outcome: upgrade.Outcome) -> None:
        assert not outcome.reason, outcome

    def begin(self) -> None:
        assert self._cluster.steps

    def proved(self, host: str) -> None:
        raise AssertionError(host)

    def attach(self, host: str) -> None:
        raise AssertionError(host)

    def tried_elsewhere(self) -> None:
        raise AssertionError

    def moved(self) -> None:
        raise AssertionError


class Listener:
    """Keeps what the link tells."""

    def __init__(self) -> None:
        self.events: list[messages.Event] = []
        self.has_ended = threading.Event()

    def may_send(self) -> bool:
        return True

    def on_notice(self, message: Any) -> None:
        if isinstance(message, messages.Event):
            self.events.append(message)

    def on_closed(self, reason: str) -> None:
        self.has_ended.set()

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


@contextmanager
def greeted(
    channel: Any, deadline_s: float = 15.0
) -> Iterator[tuple[connection.Connection, Listener, messages.Welcome]]:
    """A link on which the events flow."""
    listener, dog = Listener(), watchdog.Watchdog(deadline_s)
    link = connection.Connection(
        channel, listener, dog, name="test", ping_interval_s=deadline_s / 5, connect_limit_s=10
    )
    try:
        hello = messages.Hello((1,), "portal", 1, epoch=1, generation=1)
        welcome = link.ask(hello, 10).wait()
        assert isinstance(welcome, messages.Welcome), welcome
        link.ask(messages.Compare(()), 10).wait()
        link.notify(messages.Ack(welcome.outbox_id, welcome.first_seq - 1))
        yield link, listener, welcome
    finally:
        link.close("The test is over.")
        assert listener.has_ended.wait(5)
        dog.stop()


def run_job(link: connection.Connection, listener: Listener, tag: str) -> messages.Event:
    """Submit a job and wait for its end."""
    script = "#!/bin/sh\necho hello from $PWD\nexit 3\n"
    sha256 = hashlib.sha256(script.encode()).hexdigest()
    answer = link.ask(messages.Submit(tag, 1, script, sha256), 30).wait()
    assert isinstance(answer, messages.Submitted), answer
    assert processes.wait_until(lambda: "ended" in listener.kinds(), 20), listener.events
    return next(event for event in listener.events if event.kind == "ended")


def reach(cluster: Cluster, *, is_asked: bool = False, **options: Any) -> carriers.Channel:
    """A channel to the cluster's daemon."""
    approach = connecting.Approach(
        cluster.plan(**options), World(cluster), is_asked=is_asked, is_forced=False
    )
    return approach.run()[0]


def outcomes(cluster: Cluster) -> dict[str, str]:
    """How each step ended."""
    return {step.name: step.outcome for step in cluster.steps}


def bring_up(cluster: Cluster, **options: Any) -> float:
    """The whole bootstrap, with a job at its end; how long it took until the link was greeted."""
    begun_at = time.monotonic()
    channel = reach(cluster, is_asked=True, **options)
    with greeted(channel) as (link, listener, _):
        took_s = time.monotonic() - begun_at
        tag = "j" + hashlib.sha256(str(time.monotonic()).encode()).hexdigest()[:14].translate(
            str.maketrans("0189", "abcd")
        )
        assert run_job(link, listener, tag).data["exit_code"] == 3
    return took_s


def install_by_hand(cluster: Cluster) -> Path:
    """What a person has who followed the client's README; its `venv/`."""
    ignored = shutil.ignore_patterns("__pycache__", "state", "jobs", "log", "venv")
    shutil.copytree(CHECKOUT / "cluster_client", cluster.path, ignore=ignored)
    venv = cluster.path / "venv"
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", str(venv)], check=True)
    (packages,) = venv.glob("lib/python*/site-packages")
    websockets = Path(client_archive._directory("websockets"))
    shutil.copytree(websockets, packages / "websockets")
    for info in websockets.parent.glob("websockets-*.dist-info"):
        shutil.copytree(info, packages / info.name)
    cluster.site.give(cluster.account, cluster.path)
    return venv
