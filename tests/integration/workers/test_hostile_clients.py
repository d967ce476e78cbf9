"""Clients of a hostile cluster: they harm their own transfer, and nothing else."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from websockets.sync.server import ServerConnection

from cluster_client.protocol import messages, session
from controller import errors as controller_errors
from controller.relay.frames import Kind, json_of, payload_of
from controller.relay.socket_connection import SocketConnection
from workers.operations import transfers
from workers.operations.under_way import Carried

from .test_data import LIMIT_S, PUT, answering, linked, send


def carried_file(path: str = "in.bin", size_bytes: int = 0) -> Any:
    """What of a row a transfer looks at."""
    job = SimpleNamespace(tag=PUT.tag)
    named = {"path": path, "path_b64": base64.b64encode(path.encode()).decode()}
    return SimpleNamespace(pk=uuid4(), job=job, cluster=None, size_bytes=size_bytes, **named)


@pytest.fixture
def relay() -> Iterator[tuple[SocketConnection, SocketConnection]]:
    """The worker's end, and the web's."""
    ours, theirs = map(SocketConnection, socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.mark.parametrize("size_bytes", [-1, 3, 5, 1 << 62])
def test_a_client_that_says_it_stored_what_it_was_not_sent_is_not_believed(
    short_directory: Path, relay: tuple[SocketConnection, SocketConnection], size_bytes: int
) -> None:
    ours, web = relay
    web.send(Kind.DATA, b"four")
    web.send(Kind.END, payload_of({"bytes_sent": 4, "sha256": "0" * 64}))
    stored = messages.Stored(size_bytes, "e")

    def play(connection: ServerConnection, its: session.Session, frame: Any) -> None:
        if isinstance(frame, str):
            answering({messages.Put: messages.Ready(), messages.Finish: stored})(
                connection, its, frame
            )

    with linked(short_directory, play) as link:
        carried = Carried(uuid4(), ours)
        with pytest.raises(controller_errors.TransferBroken, match=f"stored {size_bytes} bytes"):
            transfers._put(carried, carried_file(size_bytes=4), link)


def test_a_client_with_much_to_say_bursts_no_frame(
    short_directory: Path, relay: tuple[SocketConnection, SocketConnection]
) -> None:
    def play(connection: ServerConnection, its: session.Session, frame: Any) -> None:
        answering({messages.Open: messages.Opened(0, "e" * (1 << 20))})(connection, its, frame)
        if "open" in frame:
            its.notify(messages.End(0, "", "p" * (1 << 20)))
            send(connection, its)

    ours, web = relay
    with linked(short_directory, play) as link:
        with pytest.raises(controller_errors.TransferBroken, match="ppp"):
            transfers._stream(Carried(uuid4(), ours), carried_file(), link)
        assert len(json_of(web.receive(LIMIT_S))["etag"]) == 128
