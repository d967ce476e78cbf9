"""Control links to a real daemon, over a real dial bridge."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time

import pytest
import websocket

from cluster_client.protocol import messages
from tests.integration.cluster_client_front.harness import (
    Installation,
    Link,
    LinkClosed,
    new_tag,
    wait_until,
)


def submit(link: Link, script: str) -> str:
    """Submit `script`; its tag."""
    tag = new_tag()
    digest = hashlib.sha256(script.encode()).hexdigest()
    answer = link.request(messages.Submit(tag, 1, script, digest))
    assert isinstance(answer, messages.Submitted), answer
    return tag


def is_ended(tag: str) -> object:
    return lambda message: (
        isinstance(message, messages.Event) and (message.tag, message.kind) == (tag, "ended")
    )


def is_alive(link: Link) -> bool:
    return isinstance(link.request(messages.Compare(())), messages.Compared)


@pytest.fixture
def started(installation: Installation) -> Installation:
    assert installation.start()["status"] == "started"
    return installation


@pytest.mark.every_python
def test_a_whole_job(started: Installation) -> None:
    link = started.link()
    welcome = link.greet()
    assert isinstance(welcome, messages.Welcome)
    assert (welcome.client_version, welcome.scheduler) == ("0.1.0", "local")
    assert (welcome.epoch, welcome.generation, welcome.first_seq) == (1, 1, 1)
    link.acknowledge(welcome.outbox_id, 0)
    tag = submit(link, "#!/bin/sh\necho hello; echo $0 >&2; exit 3\n")
    ended = link.wait_for(is_ended(tag))
    assert (ended.data["outcome"], ended.data["exit_code"]) == ("failed", 3)
    assert link.wait_for(lambda message: isinstance(message, messages.Polled)).open_jobs <= 1
    link.close()
    files = started.files()
    assert files.read(tag, "stdout.log") == b"hello\n"
    files.close()
    started.stop()
    assert started.dial()["status"] == "none"


# Epochs ------------------------------------------------------------------------------------------


def test_a_higher_epoch_drops_the_older_link(started: Installation) -> None:
    first = started.connect(epoch=1)
    second = started.connect(epoch=2)
    first.wait_for_end()
    assert is_alive(second)
    first.close()
    second.close()


def test_the_same_epoch_may_come_again_over_a_new_link(started: Installation) -> None:
    first = started.connect(epoch=4)
    second = started.connect(epoch=4)
    first.wait_for_end()
    assert is_alive(second)
    second.close()


def test_a_lower_epoch_is_refused_with_the_highest_seen(started: Installation) -> None:
    holder = started.connect(epoch=7)
    late = started.link()
    refused = late.greet(epoch=3)
    assert isinstance(refused, messages.Refused)
    assert (refused.code, refused.epoch, refused.generation) == ("stale_epoch", 7, 1)
    assert is_alive(holder)
    again = late.greet(epoch=8)
    assert isinstance(again, messages.Welcome)
    holder.wait_for_end()
    late.close()


def test_a_frozen_link_is_replaced_at_once(started: Installation) -> None:
    frozen = started.connect(epoch=1)
    os.kill(frozen.bridge.process.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        newer = started.connect(epoch=2)
        assert is_alive(newer)
        assert time.monotonic() - began < 10
        newer.close()
    finally:
        os.kill(frozen.bridge.process.pid, signal.SIGCONT)
    frozen.wait_for_end()


def test_a_link_may_greet_again_with_a_higher_epoch(started: Installation) -> None:
    link = started.connect(epoch=1)
    welcome = link.greet(epoch=2)
    assert isinstance(welcome, messages.Welcome)
    assert welcome.epoch == 2
    assert is_alive(link)
    link.close()


def test_a_wrong_greeting_is_refused(started: Installation) -> None:
    link = started.link()
    for greeting, code in (
        ({"instance_id": "other"}, "wrong_instance"),
        ({"cluster_id": 2}, "wrong_instance"),
        ({"versions": (99,)}, "version_mismatch"),
        ({"purpose": "files"}, "wrong_purpose"),
    ):
        answer = link.greet(**greeting)
        assert isinstance(answer, (messages.Refused, messages.Error))
        assert answer.code == code
    assert isinstance(link.greet(), messages.Welcome)
    link.close()


# Frames that break the protocol ------------------------------------------------------------------


MALFORMED = (
    "no json",
    "[]",
    "{}",
    '{"v":1,"type":"compare","id":1,"body":{"tags":7}}',
    '{"v":1,"type":"compare","id":1,"body":{"tags":[]}}',
    '{"v":1,"type":"ack","body":{"outbox_id":"x","seq":1}}',
    '{"v":1,"type":"hello","id":NaN,"body":{}}',
    "[" * 100_000,
)


def test_a_malformed_frame_ends_its_link_alone(started: Installation) -> None:
    good = started.connect()
    for frame in MALFORMED:
        bad = started.link()
        bad.socket.send(frame)
        assert bad.wait_for_end().code == 1002
        assert is_alive(good)
        bad.close()
    good.close()


def test_bytes_that_are_no_text_end_the_link(started: Installation) -> None:
    bad = started.connect()
    bad.socket.send_binary(b"\xff\xfe\xfd")
    assert bad.wait_for_end().code == 1002
    assert is_alive(started.connect())


def test_an_oversize_frame_ends_its_link_alone(started: Installation) -> None:
    good = started.connect()
    bad = started.link()
    with pytest.raises((LinkClosed, OSError, websocket.WebSocketException)):
        bad.socket.send("x" * (messages.CONTROL_LIMIT_BYTES + 1))
        bad.wait_for_end()
        raise LinkClosed(1009)
    assert is_alive(good)
    assert started.dial()["status"] == "connected"
    good.close()


def test_an_unknown_message_is_answered(started: Installation) -> None:
    link = started.connect()
    frame = {"v": 1, "type": "dance", "id": 77, "reply_to": 0, "deadline_s": 0, "body": {"x": 1}}
    link.socket.send(json.dumps(frame))
    _, data = link.socket.recv_data()
    answer = json.loads(data)
    assert (answer["type"], answer["reply_to"]) == ("error", 77)
    assert answer["body"]["code"] == "unknown_message"
    assert is_alive(link)
    link.close()


def test_a_request_for_files_is_not_for_this_link(started: Installation) -> None:
    link = started.connect()
    answer = link.request(messages.List(new_tag()))
    assert isinstance(answer, messages.Error)
    assert is_alive(link)
    link.close()


def test_a_flood_of_requests_is_answered_one_by_one(started: Installation) -> None:
    link = started.connect()
    asked = [link.session.request(messages.Compare(()), 30) for _ in range(500)]
    link.flush()
    answers = [link.answer(one) for one in asked[-1:]]
    assert isinstance(answers[0], (messages.Compared, messages.Error))
    assert is_alive(link)
    link.close()


# Life of a link ----------------------------------------------------------------------------------


def test_the_daemon_survives_the_end_of_a_link(started: Installation) -> None:
    entry = started.entry()
    started.connect().close()
    rough = started.connect(epoch=2)
    rough.bridge.process.kill()
    rough.wait_for_end()
    assert is_alive(started.connect(epoch=3))
    assert started.entry() == entry


def test_the_bridge_ends_with_its_stdin(started: Installation) -> None:
    link = started.connect()
    link.bridge.socket.shutdown(1)
    assert link.bridge.process.wait(30) == 0


def test_the_bridge_ends_with_the_daemon(started: Installation) -> None:
    link = started.connect()
    started.kill()
    link.wait_for_end(5)
    assert link.bridge.process.wait(30) == 0


def test_a_stop_says_goodbye(started: Installation) -> None:
    link = started.connect()
    started.stop()
    assert link.wait_for_end().code == 1001


def test_pings_are_answered(started: Installation) -> None:
    link = started.connect()
    link.socket.ping("are you there")
    opcode, data = link.socket.recv_data(control_frame=True)
    assert (opcode, data) == (websocket.ABNF.OPCODE_PONG, b"are you there")
    link.close()


# Events ------------------------------------------------------------------------------------------


def test_no_event_comes_before_the_first_ack(started: Installation) -> None:
    link = started.connect()
    submit(link, "#!/bin/sh\n")
    wait_until(lambda: is_alive(link) and _ended(link))
    assert not [message for message in link.notices if isinstance(message, messages.Event)]
    link.close()


def _ended(link: Link) -> bool:
    done = link.installation.run("status", link.installation.key, "--json")
    return bool(json.loads(done.stdout)["daemon"]["engine"]["jobs"].get("ended"))


def test_events_wait_for_the_server_and_come_again_until_acknowledged(
    started: Installation,
) -> None:
    link = started.connect()
    tag = submit(link, "#!/bin/sh\n")
    link.close()
    for epoch in (2, 3):
        link = started.link()
        welcome = link.greet(epoch=epoch)
        link.acknowledge(welcome.outbox_id, 0)
        ended = link.wait_for(is_ended(tag))
        numbers = [one.seq for one in link.notices if isinstance(one, messages.Event)]
        assert numbers == list(range(1, ended.seq + 1))
        if epoch == 2:
            link.close()
    link.acknowledge(welcome.outbox_id, ended.seq)
    link.close()
    link = started.link()
    welcome = link.greet(epoch=4)
    assert welcome.first_seq == ended.seq + 1
    link.close()


def test_a_new_greeting_starts_the_events_anew(started: Installation) -> None:
    link = started.link()
    welcome = link.greet(epoch=1)
    link.acknowledge(welcome.outbox_id, 0)
    tag = submit(link, "#!/bin/sh\n")
    ended = link.wait_for(is_ended(tag))
    link.notices.clear()
    link.greet(epoch=2)
    assert not link.notices
    link.acknowledge(welcome.outbox_id, 0)
    assert link.wait_for(is_ended(tag)).seq == ended.seq
    link.close()


def test_an_ack_of_another_outbox_starts_nothing(started: Installation) -> None:
    link = started.connect()
    link.acknowledge("not the outbox", 5)
    submit(link, "#!/bin/sh\n")
    wait_until(lambda: _ended(link))
    assert is_alive(link)
    assert not [message for message in link.notices if isinstance(message, messages.Event)]
    link.close()
