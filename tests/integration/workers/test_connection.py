"""A link's connection against a real WebSocket server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster_client.protocol import messages
from tests.integration.workers import peer as peers
from workers.links import connection, errors, frames, watchdog

HELLO = messages.Hello(versions=(1,), instance_id="test", cluster_id=1, epoch=1)


class Listener:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.notices: list[Any] = []
        self.reasons: list[str] = []
        self.is_allowed = True
        self.has_ended = threading.Event()

    def may_send(self) -> bool:
        return self.is_allowed

    def on_notice(self, message: Any) -> None:
        self.notices.append(message)

    def on_closed(self, reason: str) -> None:
        self.reasons.append(reason)
        self.has_ended.set()


@contextmanager
def connected(
    channel: peers.SocketChannel, deadline_s: float = 15.0, ping_interval_s: float = 5.0
) -> Iterator[tuple[connection.Connection, Listener]]:
    listener, dog = Listener(), watchdog.Watchdog(deadline_s)
    link = connection.Connection(
        channel, listener, dog, name="test", ping_interval_s=ping_interval_s, connect_limit_s=5
    )
    try:
        yield link, listener
    finally:
        link.close("The test is over.")
        assert listener.has_ended.wait(5)
        dog.stop()


@pytest.fixture
def peer(short_directory: Path) -> Iterator[tuple[peers.Peer, Callable[[], peers.SocketChannel]]]:
    def answer(message: Any) -> Any:
        if isinstance(message, messages.Submit):
            return None if message.tag == "silent" else messages.Submitted(message.tag, "7")
        return messages.Done() if isinstance(message, messages.Cancel) else messages.Compared()

    with peers.serving(short_directory, answer) as made:
        yield made


def submit(tag: str = "t") -> messages.Submit:
    return messages.Submit(tag=tag, attempt=1, script="#!/bin/sh\n", script_sha256="")


Connect = tuple[peers.Peer, Callable[[], peers.SocketChannel]]


def test_requests_are_answered_each_by_its_own_answer(peer: Connect) -> None:
    with connected(peer[1]()) as (link, _):
        assert isinstance(link.ask(HELLO, 5).wait(), messages.Welcome)
        answers = [link.ask(submit(f"t{n}"), 5) for n in range(50)]
        assert [each.wait().tag for each in answers] == [f"t{n}" for n in range(50)]
        assert link.asked == 0


def test_many_threads_may_ask_at_once(peer: Connect) -> None:
    with connected(peer[1]()) as (link, _):
        link.ask(HELLO, 5).wait()
        right: list[bool] = []

        def ask(number: int) -> None:
            for turn in range(20):
                tag = f"t{number}.{turn}"
                right.append(link.ask(submit(tag), 5).wait().tag == tag)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(right) == 160
        assert all(right)


def test_no_answer_ends_at_the_deadline_and_the_link_goes_on(peer: Connect) -> None:
    with connected(peer[1]()) as (link, _):
        link.ask(HELLO, 5).wait()
        with pytest.raises(errors.NoAnswer):
            link.ask(submit("silent"), 0.2).wait()
        assert link.ask(submit("t"), 5).wait().tag == "t"


def test_a_mute_link_sends_nothing_not_even_what_was_queued(peer: Connect) -> None:
    with connected(peer[1]()) as (link, listener):
        link.ask(HELLO, 5).wait()
        listener.is_allowed = False
        with pytest.raises(errors.LinkMute):
            link.ask(submit(), 5).wait()
        listener.is_allowed = True
        assert link.ask(submit("after"), 5).wait().tag == "after"
        told = []
        while not peer[0].received.empty():
            told.append(peer[0].received.get())
        assert [getattr(each, "tag", "") for each in told] == ["", "after"]


def test_notices_reach_the_listener_in_order(peer: Connect) -> None:
    with connected(peer[1]()) as (link, listener):
        link.ask(HELLO, 5).wait()
        server_side = peer[0].connections.get(timeout=5)
        for seq in range(1, 101):
            peer[0].notify(server_side, messages.Event("o", seq, "t", 0, "running", 1.0))
        wait_for(lambda: len(listener.notices) == 100)
        assert [event.seq for event in listener.notices] == list(range(1, 101))


def test_a_broken_link_fails_what_waits_and_tells_once(peer: Connect) -> None:
    with connected(peer[1]()) as (link, listener):
        link.ask(HELLO, 5).wait()
        waiting = link.ask(submit("silent"), 30)
        begun_at = time.monotonic()
        peer[0].connections.get(timeout=5).close_socket()
        with pytest.raises(errors.LinkClosed):
            waiting.wait()
        assert time.monotonic() - begun_at < 10
        with pytest.raises(errors.LinkClosed):
            link.ask(submit(), 5)
    assert len(listener.reasons) == 1


def test_a_protocol_breach_ends_the_link(peer: Connect) -> None:
    with connected(peer[1]()) as (link, listener):
        link.ask(HELLO, 5).wait()
        peer[0].connections.get(timeout=5).send("{ nonsense")
        assert listener.has_ended.wait(5)
        assert "broke the protocol" in listener.reasons[0]


def test_a_frame_over_the_limit_is_refused_by_its_header(peer: Connect) -> None:
    with connected(peer[1]()) as (link, listener):
        link.ask(HELLO, 5).wait()
        # Announces 1 TiB and sends nothing of it.
        head = b"\x81\x7f" + (1 << 40).to_bytes(8, "big")
        peer[0].connections.get(timeout=5).socket.sendall(head)
        assert listener.has_ended.wait(5)
        assert "over the limit" in listener.reasons[0]


def test_fragments_are_joined_and_bounded(peer: Connect) -> None:
    with connected(peer[1]()) as (link, listener):
        link.ask(HELLO, 5).wait()
        server_side = peer[0].connections.get(timeout=5)

        def endless() -> Iterator[str]:
            for _ in range(64):
                yield "x" * (64 << 10)

        with pytest.raises(Exception, match=r".*"):
            server_side.send(endless())
            server_side.recv(timeout=5)
        assert listener.has_ended.wait(5)


def test_an_end_instead_of_a_websocket_greeting_is_told() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    channel = peers.SocketChannel(ours)
    with pytest.raises(errors.CannotConnect, match="No WebSocket greeting"):
        frames.Frames(channel, 1 << 20, 5.0)
    channel.close()


def test_silence_after_the_greeting_is_noticed(peer: Connect) -> None:
    with connected(peer[1](), deadline_s=1.5, ping_interval_s=60) as (link, listener):
        link.ask(HELLO, 5).wait()
        begun_at = time.monotonic()
        with pytest.raises(errors.LinkClosed, match="Nothing was heard"):
            link.ask(submit("silent"), 20).wait()
        assert time.monotonic() - begun_at < 5
    assert "Nothing was heard" in listener.reasons[0]


def test_pings_keep_a_quiet_link(peer: Connect) -> None:
    with connected(peer[1](), deadline_s=1.5, ping_interval_s=0.3) as (link, listener):
        link.ask(HELLO, 5).wait()
        assert not listener.has_ended.wait(3)
        assert link.ask(submit(), 5).wait().tag == "t"


def wait_for(is_met: Callable[[], bool], limit_s: float = 5.0) -> None:
    ends_at = time.monotonic() + limit_s
    while not is_met():
        assert time.monotonic() < ends_at
        time.sleep(0.01)
