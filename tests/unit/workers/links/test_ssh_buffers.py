"""The pipe that replaces paramiko's own."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paramiko.buffered_pipe import PipeTimeout

from workers.links.ssh_buffers import PacketPipe


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
