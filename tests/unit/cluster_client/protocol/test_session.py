"""Two sessions joined back to back, through nothing, and through real WebSocket framing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.http11 import Request as HttpRequest
from websockets.protocol import Protocol
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from cluster_client.protocol import codec, messages, session
from cluster_client.protocol.errors import (
    MalformedFrame,
    OutOfOrder,
    ProtocolError,
    SequenceGap,
    VersionMismatch,
)

from . import samples

HELLO = messages.Hello(versions=(1,), instance_id="test", cluster_id=1, epoch=1)
WELCOME = messages.Welcome(version=1, client_version="1", host="login1", pid=2, outbox_id="o")


def pair(ours: Iterable[int] = (1,), theirs: Iterable[int] = (1,)) -> tuple[Any, Any]:
    return session.Session(versions=tuple(ours)), session.Session(versions=tuple(theirs))


def deliver(sender: session.Session, receiver: session.Session) -> list[session.Received]:
    return [item for text in sender.texts_to_send() for item in receiver.receive(text)]


def greeted() -> tuple[session.Session, session.Session]:
    server, client = pair()
    server.request(HELLO, 5)
    (request,) = deliver(server, client)
    client.reply(request.id, WELCOME)
    deliver(client, server)
    return server, client


def event(seq: int, outbox_id: str = "o") -> messages.Event:
    return messages.Event(outbox_id, seq, "j" + "a" * 14, 0, "running", 1.0)


def test_the_greeting_settles_the_version_on_both_ends() -> None:
    server, client = greeted()
    assert server.is_greeted and client.is_greeted
    assert server.version == client.version == 1


def test_a_request_is_answered_once() -> None:
    server, client = greeted()
    asked = server.request(messages.Cancel("t"), 30)
    (request,) = deliver(server, client)
    assert request == session.Request(asked, messages.Cancel("t"), 30.0)
    client.reply(asked, messages.Done())
    assert deliver(client, server) == [session.Reply(asked, messages.Done())]
    with pytest.raises(KeyError):
        client.reply(asked, messages.Done())


def test_a_doubled_late_or_uncalled_for_answer_is_dropped() -> None:
    server, client = greeted()
    asked = server.request(messages.Cancel("t"), 30)
    deliver(server, client)
    client.reply(asked, messages.Done())
    (text,) = client.texts_to_send()
    server.forget(asked)
    assert server.receive(text) == []
    assert server.receive(text) == []


def test_many_requests_are_answered_in_any_order() -> None:
    server, client = greeted()
    ids = [server.request(messages.Delete(str(n)), 30) for n in range(20)]
    deliver(server, client)
    for asked in reversed(ids):
        client.reply(asked, messages.Deleted(str(asked), True))
    assert [reply.to for reply in deliver(client, server)] == ids[::-1]


@pytest.mark.parametrize(
    "message", [messages.Cancel("t"), messages.Ack("o", 0), messages.Event("o", 1, "t", 0, "x", 0)]
)
def test_nothing_is_legal_before_the_greeting(message: Any) -> None:
    is_notice = isinstance(message, session.NOTICES)
    text = codec.encode(codec.Envelope(message, id=0 if is_notice else 1))
    with pytest.raises(OutOfOrder):
        session.Session().receive(text)
    server = session.Session()
    with pytest.raises(OutOfOrder):
        if is_notice:
            server.notify(message)
        else:
            server.request(message, 1)


def test_a_client_that_cannot_greet_may_say_why() -> None:
    server, client = pair()
    asked = server.request(HELLO, 5)
    deliver(server, client)
    client.reply(asked, messages.Error("no_space", "The disk is full.", True))
    (reply,) = deliver(client, server)
    assert reply.message.code == "no_space"
    assert not server.is_greeted


def test_an_unknown_request_is_answered_and_the_link_goes_on() -> None:
    server, client = greeted()
    frame = {"v": 1, "type": "dance", "id": 99, "body": {"a": 1}}
    assert client.receive(json.dumps(frame)) == []
    (text,) = client.texts_to_send()
    assert codec.decode(text).message.code == "unknown_message"
    assert codec.decode(text).reply_to == 99
    assert client.receive(json.dumps({**frame, "id": 0})) == []
    server.request(messages.Cancel("t"), 1)
    assert len(deliver(server, client)) == 1


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [((2, 1), (1,), 1), ((1,), (2, 1), 1), ((2, 1), (2, 1), 2), ((2, 1), (3, 2), 2)],
)
def test_neighbouring_versions_understand_each_other(
    ours: tuple[int, ...], theirs: tuple[int, ...], agreed: int
) -> None:
    server, client = pair(ours, theirs)
    asked = server.request(messages.Hello(versions=ours, instance_id="t", cluster_id=1), 5)
    (request,) = deliver(server, client)
    version = session.common_version(client.versions, request.message.versions)
    assert version == agreed
    client.reply(asked, messages.Welcome(version, "1", "h", 1))
    deliver(client, server)
    assert server.version == client.version == agreed
    server.request(messages.Cancel("t"), 1)
    assert len(deliver(server, client)) == 1


def test_versions_too_far_apart_are_told_apart_from_everything_else() -> None:
    assert session.common_version((3, 2), (1,)) is None
    server, client = pair((3, 2), (1,))
    asked = server.request(messages.Hello(versions=(3, 2), instance_id="t", cluster_id=1), 5)
    deliver(server, client)
    client.reply(asked, messages.Refused("version_mismatch", "Upgrade the client."))
    (reply,) = deliver(client, server)
    assert reply.message.code == "version_mismatch"
    with pytest.raises(VersionMismatch):
        pair((3, 2), (1,))[0]._agree(1)


def test_a_frame_of_another_version_after_the_greeting_ends_the_link() -> None:
    _, client = greeted()
    with pytest.raises(OutOfOrder):
        client.receive(codec.encode(codec.Envelope(messages.Cancel("t"), id=5, version=2)))


def test_events_may_start_anywhere_and_have_no_gaps() -> None:
    server, client = greeted()
    for seq in (7, 8, 9):
        client.notify(event(seq))
    assert [item.message.seq for item in deliver(client, server)] == [7, 8, 9]
    for wrong in (11, 9, 1):
        with pytest.raises(SequenceGap):
            server.receive(codec.encode(codec.Envelope(event(wrong))))


def test_a_second_greeting_starts_the_events_anew() -> None:
    server, client = greeted()
    client.notify(event(7))
    deliver(client, server)
    asked = server.request(HELLO, 5)
    client.notify(event(8))  # was under way
    deliver(server, client)
    client.reply(asked, WELCOME)
    deliver(client, server)
    client.notify(event(7))
    assert [item.message.seq for item in deliver(client, server)] == [7]


def test_an_acknowledgement_never_goes_back() -> None:
    _, client = greeted()
    client.receive(codec.encode(codec.Envelope(messages.Ack("o", 5))))
    client.receive(codec.encode(codec.Envelope(messages.Ack("o", 5))))
    with pytest.raises(OutOfOrder):
        client.receive(codec.encode(codec.Envelope(messages.Ack("o", 4))))


@pytest.mark.parametrize(
    "envelope",
    [
        codec.Envelope(messages.Done(), id=5),
        codec.Envelope(messages.Cancel("t")),
        codec.Envelope(messages.Event("o", 1, "t", 0, "x", 0), id=5),
    ],
)
def test_a_message_in_the_wrong_role_ends_the_link(envelope: codec.Envelope) -> None:
    _, client = greeted()
    with pytest.raises(OutOfOrder):
        client.receive(codec.encode(envelope))


def test_the_wrong_answer_ends_the_link() -> None:
    server, _ = greeted()
    asked = server.request(messages.Cancel("t"), 1)
    with pytest.raises(OutOfOrder):
        server.receive(codec.encode(codec.Envelope(messages.Deleted("t", True), reply_to=asked)))


def test_a_request_id_used_twice_ends_the_link() -> None:
    _, client = greeted()
    text = codec.encode(codec.Envelope(messages.Cancel("t"), id=5))
    client.receive(text)
    with pytest.raises(OutOfOrder):
        client.receive(text)


@pytest.mark.parametrize("is_first", [True, False])
@given(frames=st.lists(st.binary(max_size=60) | st.text(max_size=60) | samples.ENVELOPES.map(
    codec.encode), max_size=8))  # fmt: skip
@settings(max_examples=300)
def test_any_frames_raise_protocol_errors_only(is_first: bool, frames: list[Any]) -> None:
    end = session.Session() if is_first else greeted()[1]
    for frame in frames:
        try:
            end.receive(frame)
        except ProtocolError:
            return
        for text in end.texts_to_send():
            codec.decode(text)


# Through real WebSocket framing, the bytes cut at every position ----------------------------------


class Wire:
    """A session over the Sans-I/O WebSocket protocol that the product uses on the cluster."""

    def __init__(self, protocol: Protocol, end: session.Session) -> None:
        self.protocol, self.end = protocol, end
        self.received: list[session.Received] = []

    def outgoing(self) -> bytes:
        for text in self.end.texts_to_send():
            self.protocol.send_text(text.encode())
        return b"".join(self.protocol.data_to_send())

    def feed(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        for happened in self.protocol.events_received():
            if isinstance(happened, HttpRequest):
                assert isinstance(self.protocol, ServerProtocol)
                self.protocol.send_response(self.protocol.accept(happened))
            elif isinstance(happened, Frame) and happened.opcode.name == "TEXT":
                self.received += self.end.receive(bytes(happened.data))


def wires() -> tuple[Wire, Wire]:
    opening = ClientProtocol(parse_uri("ws://cluster/control"))
    server = Wire(opening, session.Session())
    client = Wire(ServerProtocol(), session.Session())
    opening.send_request(opening.connect())
    client.feed(server.outgoing())
    server.feed(client.outgoing())
    return server, client


def talk(server: Wire, client: Wire, send: Any) -> None:
    """Greet, ask, answer, tell two events; `send` carries bytes from one wire to the other."""
    server.end.request(HELLO, 5)
    send(server, client)
    client.end.reply(client.received.pop().id, WELCOME)  # type: ignore[union-attr]
    send(client, server)
    server.end.notify(messages.Ack("o", 0))
    server.end.request(messages.Submit("t", 1, "#!/bin/sh\necho ü\n", "0" * 64), 5)
    send(server, client)
    client.end.reply(client.received.pop().id, messages.Submitted("t", "7"))  # type: ignore[union-attr]
    client.end.notify(event(1))
    client.end.notify(event(2))
    send(client, server)


def test_bytes_cut_at_every_position_mean_the_same() -> None:
    lengths: list[int] = []

    def whole(sender: Wire, receiver: Wire) -> None:
        data = sender.outgoing()
        lengths.append(len(data))
        receiver.feed(data)

    server, client = wires()
    talk(server, client, whole)
    wanted = server.received, client.received
    assert [type(item).__name__ for item in server.received] == [
        "Reply",
        "Reply",
        "Notice",
        "Notice",
    ]
    for cut in range(max(lengths)):

        def halves(sender: Wire, receiver: Wire, cut: int = cut) -> None:
            data = sender.outgoing()
            receiver.feed(data[:cut])
            if data[cut:]:
                receiver.feed(data[cut:])

        server, client = wires()
        talk(server, client, halves)
        assert (server.received, client.received) == wanted


def test_one_byte_at_a_time_means_the_same() -> None:
    def drip(sender: Wire, receiver: Wire) -> None:
        for byte in sender.outgoing():
            receiver.feed(bytes([byte]))

    server, client = wires()
    talk(server, client, drip)
    assert len(server.received) == 4


def test_a_binary_frame_with_noise_is_malformed() -> None:
    _, client = greeted()
    with pytest.raises(MalformedFrame):
        client.receive(b"\xff\x00")
