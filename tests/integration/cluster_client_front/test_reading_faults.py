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
END_LIMIT_S = 30.0


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


CHANGED = """
import os, runpy, sys, threading
from pathlib import Path

change, program, *arguments = sys.argv[1:]
client = runpy.run_path(program, run_name="client")
client["_load_package"]()
from cluster_client import files, stdio_socket
exec(change)
sys.exit(client["main"](arguments))
"""
"""The client, with something in it changed."""

HANGS = """
files.CLEAN_UP_LIMIT_S = 1
real = os.{name}

def hangs(descriptor, data, *more):
    if "{name}" == "write" and len(data) < 1 << 20:
        return real(descriptor, data, *more)
    Path({marker!r}).touch()
    threading.Event().wait()

os.{name} = hangs
"""
"""A call that never returns, in place of a mount that hangs: that would be the whole machine's."""


@pytest.fixture
def changed(installation: Installation, job: Path) -> Iterator[Callable[[str], Link]]:
    bridges = []

    def start(change: str) -> Link:
        python, *words = installation.command("files", installation.key)
        bridges.append(Bridge([python, "-c", CHANGED, change, *words], installation.environment))
        link = Link(bridges[-1], installation, "/files", messages.DATA_LIMIT_BYTES)
        link.greet(purpose=messages.FILES)
        return link

    yield start
    for bridge in bridges:
        bridge.close()


def test_it_ends_when_the_other_end_reads_no_more_without_a_word(
    changed: Callable[[str], Link],
) -> None:
    link = changed("stdio_socket.STALL_LIMIT_S = stdio_socket.STALL_STEP_S = 0.2")
    link.request(messages.Open("t", 1, TAG, "big"))
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


def test_it_ends_though_a_read_hangs(changed: Callable[[str], Link], tmp_path: Path) -> None:
    marker = tmp_path / "hangs"
    link = changed(HANGS.format(name="preadv", marker=str(marker)))
    link.request(messages.Open("t", 1, TAG, "big"))
    wait_until(marker.exists)
    link.bridge.socket.close()
    assert link.bridge.process.wait(END_LIMIT_S) == 0


def test_it_ends_though_a_write_hangs_and_more_waits(
    changed: Callable[[str], Link], tmp_path: Path
) -> None:
    marker = tmp_path / "hangs"
    link = changed(HANGS.format(name="write", marker=str(marker)))
    link.request(messages.Put("t", TAG, "new", 64 << 20))
    link.socket.settimeout(1)
    with contextlib.suppress(websocket.WebSocketTimeoutException):
        for _ in range(64):
            link.socket.send_binary(bytes(1 << 20))
    wait_until(marker.exists)
    link.bridge.socket.close()
    assert link.bridge.process.wait(END_LIMIT_S) == 0
