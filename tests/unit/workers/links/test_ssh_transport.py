"""What is kept from being sent."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from paramiko import common
from paramiko.message import Message

from workers.links.ssh_buffers import BufferedSocket
from workers.links.ssh_transport import Transport

CLOSE, EOF, DATA = common.MSG_CHANNEL_CLOSE, common.MSG_CHANNEL_EOF, common.MSG_CHANNEL_DATA


def message(kind: int, channel: int) -> Message:
    made = Message()
    made.add_byte(bytes([kind]))
    made.add_int(channel)
    return made


@pytest.fixture
def transport() -> Iterator[Transport]:
    """It sends nothing: nothing was negotiated."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    made = Transport(BufferedSocket(ours), accepts=lambda *_: True, key_algorithms=("ssh-rsa",))
    yield made
    made.abort()
    ours.close()
    theirs.close()


def test_nothing_follows_the_close_of_a_channel(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, int]] = []

    def note(data: Message) -> None:
        text = data.asbytes()
        sent.append((text[0], int.from_bytes(text[1:5], "big")))

    monkeypatch.setattr(transport.packetizer, "send_message", note)
    for kind, channel in [(DATA, 0), (CLOSE, 0), (EOF, 0), (CLOSE, 0), (EOF, 1)]:
        transport._send_message(message(kind, channel))
    transport._send_message(message(common.MSG_GLOBAL_REQUEST, 0))
    assert sent == [(DATA, 0), (CLOSE, 0), (EOF, 1), (common.MSG_GLOBAL_REQUEST, 0)]
