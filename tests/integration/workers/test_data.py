"""A data link to clients that fail half-way, or are too old, over a real WebSocket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, unix_serve

from cluster_client.protocol import messages, session
from controller import errors as controller_errors
from workers.links import clock, data, errors
from workers.operations import told, transfers

from .peer import WELCOME, SocketChannel

HELLO = messages.Hello((1,), "test", 1, purpose=messages.FILES)
PUT = messages.Put("t", "j" + "a" * 14, "in.bin", 1 << 20)
LIMIT_S = 20.0
Play = Callable[[ServerConnection, session.Session, Any], None]


@contextmanager
def linked(directory: Path, play: Play) -> Iterator[data.DataLink]:
    """A link to a client that greets, and plays its part with each frame from then on."""

    def handle(connection: ServerConnection) -> None:
        its = session.Session(messages.DATA_LIMIT_BYTES)
        try:
            for frame in connection:
                play(connection, its, frame)
        except ConnectionClosed:
            return

    path = str(directory / "client")
    with unix_serve(handle, path, compression=None, max_size=4 << 20) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        own = socket.socket(socket.AF_UNIX)
        own.connect(path)
        try:
            yield data.DataLink(SocketChannel(own), HELLO, clock.now() + LIMIT_S)
        finally:
            own.close()
            server.shutdown()
            thread.join(LIMIT_S)


def send(connection: ServerConnection, its: session.Session) -> None:
    for text in its.texts_to_send():
        connection.send(text)


def answering(answers: dict[type, object]) -> Play:
    def play(connection: ServerConnection, its: session.Session, frame: Any) -> None:
        if isinstance(frame, bytes):
            its.notify(messages.End(0, "", problem="The disk is full."))
        for item in its.receive(frame) if isinstance(frame, str) else ():
            if isinstance(item, session.Request):
                its.reply(item.id, {messages.Hello: WELCOME, **answers}[type(item.message)])
        send(connection, its)

    return play


def test_a_client_that_fails_half_way_is_sent_no_more(short_directory: Path) -> None:
    full = messages.Error("no_space", "Could not write to in.bin.", transient=True)
    play = answering({messages.Put: messages.Ready(), messages.Finish: full})
    with linked(short_directory, play) as link:
        assert isinstance(link.ask(PUT), messages.Ready)
        assert not link.is_free
        sent = 0
        while link.send_piece(bytes(1000)):
            sent += 1
        reply = link.ask(messages.Finish(sent * 1000, ""))
        with pytest.raises(controller_errors.NoSpace, match=r"in\.bin"):
            told.answered(reply)
        assert link.is_free


def test_a_client_that_is_too_old_to_take_files_is_told_with_what_to_do(
    short_directory: Path,
) -> None:
    old = messages.Error("unknown_message", "There is no put here.")
    cluster: Any = SimpleNamespace(cluster=SimpleNamespace(name="meluxina"))
    with linked(short_directory, answering({messages.Put: old})) as link:
        with pytest.raises(controller_errors.Refused, match="Bootstrap the cluster") as caught:
            transfers._answered_put(cluster, link.ask(PUT))
        assert "meluxina" in str(caught.value)
        assert link.is_free


def test_a_client_that_closes_while_bytes_go_is_quoted(short_directory: Path) -> None:
    def play(connection: ServerConnection, its: session.Session, frame: Any) -> None:
        if isinstance(frame, bytes):
            connection.close(1011, "reading failed: Stale file handle")
        else:
            answering({messages.Put: messages.Ready()})(connection, its, frame)

    with linked(short_directory, play) as link:
        link.ask(PUT)
        with pytest.raises(errors.LinkError, match="Stale file handle"):
            while link.send_piece(bytes(100_000)):
                pass
        assert not link.is_free


def test_a_link_that_is_aborted_wakes_who_waits(short_directory: Path) -> None:
    def play(connection: ServerConnection, its: session.Session, frame: Any) -> None:
        answering({messages.Open: messages.Opened(5, "e")})(connection, its, frame)

    with linked(short_directory, play) as link:
        link.ask(messages.Open("t", 1, PUT.tag, "out.bin"))
        stop = threading.Timer(0.1, link.abort)
        stop.start()
        with pytest.raises(errors.LinkClosed):
            link.receive_piece()
        stop.join()


def test_a_client_that_stands_still_is_given_up(short_directory: Path) -> None:
    play = answering({messages.Open: messages.Opened(5, "e")})
    with linked(short_directory, play) as link:
        link.ask(messages.Open("t", 1, PUT.tag, "out.bin"))
        link.extend(clock.now() + 0.1)
        with pytest.raises(errors.NoAnswer):
            link.receive_piece()


def talk_on(connection: ServerConnection) -> None:
    while True:
        connection.ping()
        with suppress(TimeoutError):
            connection.recv(0.02)  # notices who has gone


def drip(connection: ServerConnection) -> None:
    connection.socket.sendall(b"\x82\x7e\xff\xff")  # the head of 65,535 bytes
    while True:
        connection.socket.sendall(b"x")
        with suppress(TimeoutError):
            connection.recv(0.02)


@pytest.mark.parametrize("speak", [talk_on, drip])
def test_a_client_that_talks_on_and_says_nothing_is_given_up(
    short_directory: Path, speak: Callable[[ServerConnection], None]
) -> None:
    def play(connection: ServerConnection, its: session.Session, frame: Any) -> None:
        answering({messages.Open: messages.Opened(5, "e")})(connection, its, frame)
        if isinstance(frame, str) and "open" in frame:
            with suppress(OSError):
                speak(connection)

    with linked(short_directory, play) as link:
        link.ask(messages.Open("t", 1, PUT.tag, "out.bin"))
        link.extend(clock.now() + 0.3)
        with pytest.raises(errors.NoAnswer):
            link.receive_piece()
