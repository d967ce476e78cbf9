"""`client.py serve`: attached to a connection, or by hand in the foreground."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess

from cluster_client.protocol import messages
from tests.integration.cluster_client_front.harness import (
    Bridge,
    Installation,
    Link,
    new_tag,
    wait_until,
)


def attach(installation: Installation, generation: int = 1) -> tuple[Bridge, dict[str, object]]:
    first = json.dumps(installation.document(generation)).encode() + b"\n"
    bridge = installation.bridge("serve", "--stdio", installation.key, first=first)
    assert bridge.marker["status"] == "ready"
    answer: dict[str, object] = json.loads(bridge.line())
    installation.entry()
    return bridge, answer


def test_a_whole_job_over_an_attached_daemon(installation: Installation) -> None:
    bridge, answer = attach(installation)
    assert (answer["status"], answer["pid"]) == ("started", bridge.process.pid)
    link = Link(bridge, installation)
    welcome = link.greet()
    link.acknowledge(welcome.outbox_id, 0)
    tag, script = new_tag(), "#!/bin/sh\necho hello\n"
    digest = hashlib.sha256(script.encode()).hexdigest()
    submitted = link.request(messages.Submit(tag, 1, script, digest))
    assert isinstance(submitted, messages.Submitted), submitted
    ended = link.wait_for(lambda message: getattr(message, "kind", "") == "ended")
    assert ended.data["outcome"] == "completed"
    link.close()
    assert bridge.process.returncode == 0
    found = installation.dial()
    assert found["status"] == "none"
    assert "its connection ended" in found["last_death"]


def test_it_dies_with_its_connection_and_the_next_one_catches_up(
    installation: Installation,
) -> None:
    bridge, _ = attach(installation)
    link = Link(bridge, installation)
    link.greet()
    tag, script = new_tag(), "#!/bin/sh\nsleep 1\n"
    digest = hashlib.sha256(script.encode()).hexdigest()
    assert isinstance(link.request(messages.Submit(tag, 1, script, digest)), messages.Submitted)
    bridge.socket.close()
    bridge.process.wait(60)
    bridge, answer = attach(installation, 2)
    assert answer["status"] == "started"
    link = Link(bridge, installation)
    welcome = link.greet(epoch=2, generation=2)
    link.acknowledge(welcome.outbox_id, welcome.first_seq - 1)
    ended = link.wait_for(lambda message: getattr(message, "kind", "") == "ended")
    assert (ended.tag, ended.data["outcome"]) == (tag, "completed")
    link.close()


def test_an_attached_daemon_is_stale_for_others_and_gives_way_to_a_newer(
    installation: Installation,
) -> None:
    bridge, _ = attach(installation)
    found = installation.dial()
    assert found["status"] == "stale"
    assert "attached" in found["detail"]
    assert installation.start(1)["status"] == "already"
    assert installation.start(2)["status"] == "started"
    assert bridge.process.wait(60) == 0
    assert installation.dial()["status"] == "connected"


def test_a_running_daemon_of_this_generation_is_not_doubled(installation: Installation) -> None:
    started = installation.start()
    bridge, answer = attach(installation)
    assert (answer["status"], answer["pid"]) == ("already", started["pid"])
    assert bridge.process.wait(60) == 1


def test_a_daemon_in_the_foreground_uses_the_last_document(installation: Installation) -> None:
    installation.settings["HPC_LOG_LEVEL"] = "DEBUG"
    installation.start(5)
    installation.stop()
    process = subprocess.Popen(
        installation.command("serve", installation.key),
        stdout=subprocess.PIPE,
        text=True,
        env=installation.environment,
    )
    try:
        assert process.stdout is not None
        answer = json.loads(process.stdout.readline())
        assert (answer["status"], answer["generation"]) == ("started", 5)
        link = installation.connect(generation=5)
        link.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert "stopped by SIGINT" in installation.dial()["last_death"]
    finally:
        process.kill()
        process.communicate()


def test_a_daemon_in_the_foreground_needs_no_document(installation: Installation) -> None:
    process = subprocess.Popen(
        installation.command("serve", installation.key),
        stdout=subprocess.PIPE,
        text=True,
        env=installation.environment,
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["generation"] == 1
        wait_until(lambda: installation.dial()["status"] == "connected")
        installation.stop()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
