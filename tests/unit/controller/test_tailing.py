"""Where the last lines of a file begin."""

from __future__ import annotations

import io

import pytest
from django.core.management.base import OutputWrapper
from hypothesis import given
from hypothesis import strategies as st

from controller import errors
from controller.management.verbs import tailing
from controller.management.verbs.terminal import Console


def last(content: bytes, lines: int, block_bytes: int = 4) -> bytes:
    start = tailing.start_of_last(
        lambda offset, length: content[offset : offset + length], len(content), lines, block_bytes
    )
    return content[start:]


@given(
    st.lists(st.sampled_from([b"a", b"bb", b"\n"]), max_size=40).map(b"".join),
    st.integers(0, 8),
    st.integers(1, 9),
)
def test_the_last_lines_are_those_that_anybody_would_count(
    content: bytes, lines: int, block_bytes: int
) -> None:
    expected = content.splitlines(keepends=True)
    wanted = b"".join(expected[len(expected) - min(lines, len(expected)) :])
    assert last(content, lines, block_bytes) == wanted


def test_only_the_end_is_read() -> None:
    asked: list[tuple[int, int]] = []

    def read(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return b"x" * 50 + b"\n" + b"y" * (length - 52) + b"\n"

    size = 10**12
    assert tailing.start_of_last(read, size, 1, 100) == size - 49
    assert asked == [(size - 100, 100)]


def test_data_without_lines_is_not_read_whole() -> None:
    asked: list[tuple[int, int]] = []

    def read(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return bytes(length)

    start = tailing.start_of_last(read, 10**12, 10, block_bytes=300, most_bytes=1000)
    assert start == 10**12 - 1000
    assert sum(length for _, length in asked) == 1000


class Told(OutputWrapper):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        super().__init__(self.stream)


def test_trouble_is_told_once_and_does_not_last_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailing, "POLL_S", 0.001)
    monkeypatch.setattr(tailing, "PAUSE_MOST_S", 0.002)
    err = Told()
    trouble = tailing.Trouble(Console(Told(), err))
    trouble.wait(errors.Busy("As much is under way."))
    trouble.wait(errors.Unavailable("Another."))
    trouble.passed()
    trouble.passed()
    assert err.stream.getvalue().splitlines() == [
        "As much is under way. It is tried again (Ctrl-C stops).",
        "It goes on.",
    ]
    monkeypatch.setattr(tailing, "TROUBLE_LIMIT_S", 0.05)  # now: a try may take longer than that
    with pytest.raises(errors.QueueUnreachable):
        while True:
            trouble.wait(errors.QueueUnreachable("Redis can't be reached."))


def test_a_file_that_shrinks_meanwhile_ends_the_search() -> None:
    assert tailing.start_of_last(lambda offset, length: b"", 1000, 3, 100) == 0
