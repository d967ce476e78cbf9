"""Messages on a channel whose bytes come in any pieces."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from websockets.sync.server import ServerConnection, unix_serve

from workers.links import frames

SIZES = [0, 1, 125, 126, 65535, 65536, frames.JOINED_BYTES, frames.JOINED_BYTES + 1, 1 << 20]


@pytest.fixture
def echo(short_directory: object) -> Iterator[frames.Frames]:
    """A link to a real server, another program's, that sends each message back."""

    def handle(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    path = f"{short_directory}/echo"
    with unix_serve(handle, path, compression=None, max_size=4 << 20) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with socket.socket(socket.AF_UNIX) as own:
                own.connect(path)
                yield frames.Frames(own, 4 << 20, 10.0)  # type: ignore[arg-type]
        finally:
            server.shutdown()
            thread.join(10)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_all_sizes_go_and_come_back(echo: frames.Frames, kind: type) -> None:
    for size in SIZES:
        sent = bytes(range(256)) * (size // 256) + bytes(size % 256)
        echo.send_bytes(kind(sent))
        assert echo.receive() == (2, sent)


def test_nothing_that_came_is_lost_by_a_wait_that_ends() -> None:
    pieces = [b"ab", b"cdefgh", TimeoutError(), b"ij", b"klm"]

    def receive(size: int) -> bytes:
        piece = pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece

    buffer = frames.BoundedFrames(receive, 100)
    assert buffer.recv_strict(3) == b"abc"
    with pytest.raises(TimeoutError):
        buffer.recv_strict(7)
    assert buffer.recv_strict(7) == b"defghij"
    assert buffer.recv_strict(0) == b""
    assert buffer.recv_strict(3) == b"klm"
