"""A data link to clients that fail half-way, or are too old, over a real WebSocket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from pytest_django import Settings
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, unix_serve

from cluster_client.protocol import messages, session
from controller import errors as controller_errors
from controller.relay.frames import Kind, payload_of
from controller.relay.socket_connection import SocketConnection
from workers.links import clock, data, errors
from workers.operations import told, transfers, under_way

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


# Longer than the first word may take --------------------------------------------------------------

SOON_S = 3.0
LATE_S = 0.3
MIB = 1 << 20
PIECES = 24
"""More MiB than all that is between the two ends holds."""


def let_pass(moment: float) -> None:
    """Wait until it is a little later than `moment`, on the clock of the links."""
    threading.Event().wait(max(0.0, moment + LATE_S - clock.now()))


@pytest.fixture
def relay() -> Iterator[tuple[under_way.Carried, SocketConnection]]:
    """A transfer that is carried, and the web's end of its relay."""
    ours, theirs = map(SocketConnection, socket.socketpair())
    yield under_way.Carried(uuid4(), ours), theirs
    ours.close()
    theirs.close()


def row(size_bytes: int) -> Any:
    return SimpleNamespace(
        pk=uuid4(),
        job=SimpleNamespace(tag=PUT.tag),
        path="x",
        path_b64="eA==",
        size_bytes=size_bytes,
    )


def test_a_file_may_come_long_after_its_first_word_in_pieces_of_the_size_that_is_set(
    short_directory: Path,
    relay: tuple[under_way.Carried, SocketConnection],
    settings: Settings,
) -> None:
    settings.HPC_FILE_CONNECTION_CHUNK_SIZE = 4321
    ends_at = clock.now() + SOON_S
    end = messages.End(4, "0" * 64)
    asked: list[str] = []

    def play(connection: ServerConnection, its: session.Session, frame: Any) -> None:
        answering({messages.Open: messages.Opened(4, "e")})(connection, its, frame)
        if "chunk_bytes" in frame:
            asked.append(frame)
            connection.send(b"da")
            let_pass(ends_at)
            connection.send(b"ta")
            its.notify(end)
            send(connection, its)

    with linked(short_directory, play) as link:
        link.extend(ends_at)
        assert transfers._stream(relay[0], row(4), link) == end
    assert relay[0].done_bytes == 4
    assert json.loads(asked[0])["body"]["chunk_bytes"] == 4321


def test_a_file_may_go_long_after_its_first_word(
    short_directory: Path, relay: tuple[under_way.Carried, SocketConnection]
) -> None:
    carried, web = relay
    ends_at = clock.now() + SOON_S
    stored = messages.Stored(PIECES * MIB, "e")

    def play(connection: ServerConnection, its: session.Session, frame: Any) -> None:
        if isinstance(frame, bytes):
            let_pass(ends_at)  # until then nothing more is taken
            return
        if "sha256" in frame:
            threading.Event().wait(LATE_S)
        answers = {messages.Put: messages.Ready(), messages.Finish: stored}
        answering(answers)(connection, its, frame)

    def pour() -> None:
        for _ in range(PIECES):
            web.send(Kind.DATA, bytes(MIB))
        web.send(Kind.END, payload_of({"sha256": "0" * 64}))

    with (
        linked(short_directory, play) as link,
        ThreadPoolExecutor(1) as pool,
        closing(carried.relay),  # else who pours would wait for long if this fails
    ):
        link.extend(ends_at)
        sending = pool.submit(pour)
        assert transfers._put(carried, row(PIECES * MIB), link) == (stored, "0" * 64)
        sending.result(LIMIT_S)
