"""Messages on a channel whose bytes come in any pieces."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import websocket
from websockets.sync.server import ServerConnection, unix_serve
from websockets.utils import accept_key

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


def test_a_stream_that_ends_in_the_middle_of_a_frame_is_no_frame() -> None:
    pieces = [b"abcd", b""]

    class Channel:
        recv = None

        def recv_into(self, space: memoryview) -> int:
            piece = pieces.pop(0)[: len(space)]
            space[: len(piece)] = piece
            return len(piece)

    buffer = frames.BoundedFrames(Channel(), 100)  # type: ignore[arg-type]
    assert buffer.recv_strict(0) == b""
    with pytest.raises(websocket.WebSocketConnectionClosedException):
        buffer.recv_strict(7)


def test_a_flood_of_empty_fragments_costs_no_more_than_its_bytes() -> None:
    count = 100_000
    flood = b"\x02\x00" + b"\x00\x00" * count + b"\x80\x02ok"
    begun_at = time.process_time()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        greeted = threading.Thread(target=_greet_and_send, args=(theirs, flood))
        greeted.start()
        link = frames.Frames(ours, 4 << 20, 30.0)  # type: ignore[arg-type]
        assert link.receive() == (2, b"ok")
        greeted.join()
    assert time.process_time() - begun_at < 60  # counted anew with each it took hours


def _greet_and_send(server: socket.socket, data: bytes) -> None:
    asked = b""
    while b"\r\n\r\n" not in asked:
        asked += server.recv(4096)
    key = asked.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0].decode()
    server.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_key(key).encode() + b"\r\n\r\n" + data
    )
