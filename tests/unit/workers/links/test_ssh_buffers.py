"""The pipe that replaces paramiko's own."""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paramiko import SSHException
from paramiko.buffered_pipe import PipeTimeout

from workers.links.ssh_buffers import AT_ONCE_BYTES, BufferedSocket, PacketPipe


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=20), st.integers(1, 70))
def test_pipe_gives_back_what_was_fed(packets: list[bytes], size: int) -> None:
    pipe = PacketPipe()
    for packet in packets:
        pipe.feed(packet)
    assert len(pipe) == sum(map(len, packets))
    pipe.close()
    read = []
    while data := pipe.read(size):
        assert len(data) <= size
        read.append(data)
    assert b"".join(read) == b"".join(packets)
    assert len(pipe) == 0


def test_pipe_waits_no_longer_than_it_may() -> None:
    pipe = PacketPipe()
    with pytest.raises(PipeTimeout):
        pipe.read(1, 0.0)
    with pytest.raises(PipeTimeout):
        pipe.read(1, 0.01)


def test_pipe_tells_by_its_event_whether_a_read_would_wait() -> None:
    pipe, event = PacketPipe(), threading.Event()
    pipe.set_event(event)
    assert not event.is_set()
    pipe.feed(b"abc")
    assert event.is_set()
    assert pipe.read(2) == b"ab"
    assert event.is_set()
    assert pipe.empty() == b"c"
    assert not event.is_set()
    assert not pipe.read_ready()
    pipe.close()
    assert event.is_set()
    assert pipe.read(1) == b""


def test_reader_of_bulk_is_woken_for_much_at_once_and_gets_it_in_order() -> None:
    pipe, space = PacketPipe(), memoryview(bytearray(AT_ONCE_BYTES + 10))
    packets = [bytes([number]) * 1000 for number in range(256)]
    with pytest.raises(PipeTimeout):
        pipe.feed(packets[0])
        pipe.read_into(space, 0.01)
    feeder = threading.Thread(target=lambda: [pipe.feed(packet) for packet in packets[1:] * 2])
    feeder.start()
    count = pipe.read_into(space, 5)
    assert AT_ONCE_BYTES <= count <= len(space)
    feeder.join()
    rest = memoryview(bytearray(1000))
    assert pipe.read_into(rest, 5) == 1000
    whole = b"".join([packets[0], *packets[1:] * 2])
    assert bytes(space[:count]) + bytes(rest) == whole[: count + 1000]


def test_reader_of_bulk_gets_what_there_is_at_the_end() -> None:
    pipe, space = PacketPipe(), memoryview(bytearray(100))
    pipe.feed(b"abc")
    pipe.close()
    assert (pipe.read_into(space, 5), bytes(space[:3])) == (3, b"abc")
    assert pipe.read_into(space, 5) == 0


def test_server_that_sends_beyond_the_window_is_cut_off() -> None:
    pipe = PacketPipe(10)
    pipe.feed(b"12345678")
    with pytest.raises(SSHException, match="window"):
        pipe.feed(b"901")
    assert pipe.read(8) == b"12345678"
    pipe.feed(b"901")


def test_closing_a_socket_wakes_its_reader_at_once() -> None:
    """However seldom the reader of an idle connection wakes by itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        plain = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        ours, ended = BufferedSocket(plain), threading.Event()
        ours.settimeout(60)

        def read() -> None:
            try:
                assert ours.recv(1) == b""
            except OSError:  # closed before it began
                assert ours._closed
            ended.set()

        threading.Thread(target=read, daemon=True).start()
        ours.close()
        assert ended.wait(30)
        theirs.close()
