from __future__ import annotations

import pytest

from cluster_client import journal

ENTRIES = [{"n": 7, "t": "a"}, {"n": 8, "t": "b", "text": "zwölf\n"}, {"n": 9, "t": "c"}]
LINES = [journal.encode(entry) for entry in ENTRIES]


def test_lines_are_read_back():
    assert journal.decode(b"".join(LINES)) == (ENTRIES, 0)


def test_a_torn_tail_is_ignored_wherever_it_was_torn():
    data = b"".join(LINES)
    ends = [len(b"".join(LINES[:count])) for count in range(len(LINES) + 1)]
    for cut in range(len(data) + 1):
        whole = max(count for count, end in enumerate(ends) if end <= cut)
        assert journal.decode(data[:cut]) == (ENTRIES[:whole], cut - ends[whole])


def test_any_changed_byte_ends_the_file_before_its_line():
    data = bytearray(b"".join(LINES))
    for position in range(len(LINES[0]), len(LINES[0]) + len(LINES[1]) - 1):
        changed = bytearray(data)
        changed[position] ^= 0x01
        assert journal.decode(bytes(changed))[0] == ENTRIES[:1], position


def test_a_missing_line_ends_the_file():
    assert journal.decode(LINES[0] + LINES[2]) == (ENTRIES[:1], len(LINES[2]))


@pytest.mark.parametrize(
    "line", [b"", b"x", b"00000000 {}", b"zzzzzzzz {}", journal.encode({})[:-1]]
)
def test_what_is_no_line_of_ours_is_none(line):
    assert journal.decode_line(line) is None


def test_a_snapshot_counts_only_as_a_whole():
    data = journal.encode_snapshot([{"t": "head"}, {"t": "job"}])
    assert journal.decode_snapshot(data) == [{"n": 0, "t": "head"}, {"n": 1, "t": "job"}]
    for cut in range(len(data)):
        assert journal.decode_snapshot(data[:cut]) is None
    assert journal.decode_snapshot(data + b"x") is None
