"""Files that change or fail while `client.py files` sends them, and askers that go away."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import websocket

from cluster_client.protocol import messages
from tests.integration.cluster_client_front.harness import Bridge, Installation, Link, wait_until

TAG = "jaaaaaaaaaaaaaa"
BIG_BYTES = 64 << 20
END_LIMIT_S = 10.0


@pytest.fixture
def job(installation: Installation) -> Path:
    directory = installation.jobs / TAG
    directory.mkdir(parents=True)
    with (directory / "big").open("wb") as file:
        file.truncate(BIG_BYTES)
    return directory


@pytest.fixture
def link(installation: Installation, job: Path) -> Iterator[Link]:
    one = installation.files()
    yield one
    one.close()


def read_to_end(link: Link) -> messages.End:
    end: messages.End = link.wait_for(lambda message: isinstance(message, messages.End))
    link.notices.clear()
    assert (end.bytes_sent, end.sha256) == (len(link.data), hashlib.sha256(link.data).hexdigest())
    return end


@pytest.mark.parametrize(
    ("asked", "got"),
    [(1, 1 << 10), (-5, 1 << 10), (5000, 5000), (1 << 20, 1 << 20), (1 << 40, (4 << 20) - 16)],
)
def test_the_frames_are_as_large_as_was_asked_for_within_bounds(
    link: Link, job: Path, asked: int, got: int
) -> None:
    with (job / "file").open("wb") as file:
        file.truncate(2 * got + 1)
    link.request(messages.Open("t", 1, TAG, "file", chunk_bytes=asked))
    sizes = []
    while len(link.data) < 2 * got + 1:
        before = len(link.data)
        link.receive()
        sizes.append(len(link.data) - before)
    assert sizes == [got, got, 1]
    assert read_to_end(link).problem == ""


def test_a_file_that_shrinks_is_told(link: Link, job: Path) -> None:
    link.request(messages.Open("t", 1, TAG, "big"))
    link.receive()
    os.truncate(job / "big", 1000)
    end = read_to_end(link)
    assert 1000 <= end.bytes_sent < BIG_BYTES
    assert f"shrank from {BIG_BYTES} to 1000 bytes while it was sent" in end.problem
    assert link.read(TAG, "big") == bytes(1000)


def test_a_file_that_grows_is_sent_as_large_as_it_was(link: Link, job: Path) -> None:
    link.request(messages.Open("t", 1, TAG, "big"))
    link.receive()
    with (job / "big").open("ab") as file:
        file.write(b"more")
    end = read_to_end(link)
    assert (end.bytes_sent, end.problem) == (BIG_BYTES, "")


def test_a_file_that_is_removed_or_replaced_is_sent_as_it_was(link: Link, job: Path) -> None:
    link.request(messages.Open("t", 1, TAG, "big"))
    link.receive()
    (job / "new").write_text("new")
    (job / "new").rename(job / "big")
    assert read_to_end(link).bytes_sent == BIG_BYTES
    assert link.read(TAG, "big") == b"new"


def test_memory_stays_flat(link: Link, job: Path) -> None:
    link.request(messages.Open("t", 1, TAG, "big"))
    link.receive()
    before = peak_mib(link)
    read_to_end(link)
    assert peak_mib(link) - before < 8


def peak_mib(link: Link) -> float:
    status = Path(f"/proc/{link.bridge.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


# Askers that go away -----------------------------------------------------------------------------


def test_it_ends_though_nobody_takes_what_it_sends(installation: Installation, job: Path) -> None:
    link = installation.files()
    link.request(messages.Open("t", 1, TAG, "big"))
    wait_until(lambda: is_blocked(link))
    link.bridge.socket.shutdown(socket.SHUT_WR)
    assert link.bridge.process.wait(END_LIMIT_S) == 0


def is_blocked(link: Link) -> bool:
    """True while it sleeps, and something waits that we don't read."""
    waiting = bytearray(4)
    fcntl.ioctl(link.bridge.socket.fileno(), termios.FIONREAD, waiting)
    status = Path(f"/proc/{link.bridge.process.pid}/stat").read_text()
    return any(waiting) and status.rpartition(") ")[2].startswith("S")


def test_it_ends_when_the_link_is_cut_in_the_middle(installation: Installation, job: Path) -> None:
    link = installation.files()
    link.request(messages.Open("t", 1, TAG, "big"))
    link.receive()
    link.bridge.socket.close()
    assert link.bridge.process.wait(END_LIMIT_S) == 0


HANGING = """
import os, runpy, sys, threading

name, marker = sys.argv.pop(1), sys.argv.pop(1)
real = getattr(os, name)

def call(descriptor, data, *more):
    if len(data) < 1 << 20 and name == "write":
        return real(descriptor, data, *more)
    sys.modules["cluster_client.files"].CLEAN_UP_LIMIT_S = 1
    open(marker, "w").close()
    threading.Event().wait()

setattr(os, name, call)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""The client with a file server that does not answer: a call that never returns stands for it,
since a mount that hangs would be the whole machine's."""


@pytest.fixture
def hanging(
    installation: Installation, job: Path, tmp_path: Path
) -> Iterator[Callable[[str], Link]]:
    script = tmp_path / "hanging.py"
    script.write_text(HANGING)
    bridges = []

    def start(name: str) -> Link:
        python, client, *arguments = installation.command("files", installation.key)
        words = [python, str(script), name, str(tmp_path / "hangs"), client, *arguments]
        bridges.append(Bridge(words, installation.environment))
        link = Link(bridges[-1], installation, "/files", messages.DATA_LIMIT_BYTES)
        link.greet(purpose=messages.FILES)
        return link

    yield start
    for bridge in bridges:
        bridge.close()


def test_it_ends_though_a_read_hangs(hanging: Callable[[str], Link], tmp_path: Path) -> None:
    link = hanging("preadv")
    link.request(messages.Open("t", 1, TAG, "big"))
    wait_until((tmp_path / "hangs").exists)
    link.bridge.socket.close()
    assert link.bridge.process.wait(END_LIMIT_S) == 0


def test_it_ends_though_a_write_hangs_and_more_waits(
    hanging: Callable[[str], Link], tmp_path: Path
) -> None:
    link = hanging("write")
    link.request(messages.Put("t", TAG, "new", 64 << 20))
    link.socket.settimeout(1)
    with contextlib.suppress(websocket.WebSocketTimeoutException):
        for _ in range(64):
            link.socket.send_binary(bytes(1 << 20))
    assert (tmp_path / "hangs").exists()
    link.bridge.socket.close()
    assert link.bridge.process.wait(END_LIMIT_S) == 0
