"""Where the last lines of a file begin."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.management.verbs import tailing


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


def test_a_file_that_shrinks_meanwhile_ends_the_search() -> None:
    assert tailing.start_of_last(lambda offset, length: b"", 1000, 3, 100) == 0
