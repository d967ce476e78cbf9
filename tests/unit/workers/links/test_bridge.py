"""The client's first line is found behind whatever start-up files print."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from workers.links import bridge, errors

LINE = b'HPC-BRIDGE 1 {"status": "connected", "host": "n1", "versions": [1, 2]}\n'


class Pieces:
    """A channel that hands out given pieces, then ends."""

    def __init__(self, pieces: Iterable[bytes], words: str = "") -> None:
        self._pieces = list(pieces)
        self._words = words
        self.limits: list[float | None] = []

    def recv(self, size: int) -> bytes:
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if len(piece) > size:
            self._pieces.insert(0, piece[size:])
        return piece[:size]

    def unread(self, data: bytes) -> None:
        if data:
            self._pieces.insert(0, data)

    def settimeout(self, limit_s: float | None) -> None:
        self.limits.append(limit_s)

    def stderr_tail(self) -> str:
        return self._words

    def left(self) -> bytes:
        return b"".join(self._pieces)


def read(channel: Any) -> bridge.Marker:
    return bridge.read_marker(channel, 5.0)


def test_the_marker_is_found_behind_noise() -> None:
    marker = read(Pieces([b"Welcome to the cluster!\nquota: 3 GB\n", LINE]))
    assert (marker.status, marker.host, marker.versions) == ("connected", "n1", (1, 2))


def test_the_marker_may_be_cut_anywhere() -> None:
    whole = b"motd\n" + LINE + b"rest"
    for cut in range(1, len(whole)):
        channel = Pieces([whole[:cut], whole[cut:]])
        assert read(channel).status == "connected"


def test_what_follows_the_line_is_left_for_the_link() -> None:
    channel = Pieces([LINE + b"HTTP/1.1 101"])
    read(channel)
    assert channel.left() == b"HTTP/1.1 101"


def test_endless_noise_is_cut_off_with_what_to_do() -> None:
    with pytest.raises(errors.CannotConnect, match="start-up files") as caught:
        read(Pieces([b"x" * 16384] * 100))
    assert not caught.value.transient


def test_an_end_before_the_marker_tells_what_stderr_said() -> None:
    with pytest.raises(errors.CannotConnect, match="No space left") as caught:
        read(Pieces([b"hm\n"], "python: No space left on device"))
    assert caught.value.reason == "no_bridge"
    assert caught.value.transient


@pytest.mark.parametrize("line", [b"{nonsense\n", b"[1]\n", b"x" * (1 << 17)])
def test_a_line_that_is_no_object_is_refused(line: bytes) -> None:
    with pytest.raises(errors.CannotConnect):
        read(Pieces([b"HPC-BRIDGE 1 " + line]))


def test_a_silent_client_is_given_up_in_time() -> None:
    class Silent(Pieces):
        def recv(self, size: int) -> bytes:
            raise TimeoutError

    with pytest.raises(errors.CannotConnect, match="did not come in time"):
        read(Silent([]))


def test_the_command_is_an_argv_without_a_formatted_shell_string() -> None:
    installation = bridge.Installation("/home/u/it's here/", "py thon")
    argv = installation.command("dial", "a.1")
    assert argv[2] == bridge.COMMAND
    assert argv[4:] == ["/home/u/it's here/client.py", "py thon", "dial", "a.1"]
