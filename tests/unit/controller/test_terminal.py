"""What comes out of a job is data: a terminal never obeys it."""

import io
import itertools
import time

import pytest
from django.core.management.base import OutputWrapper
from hypothesis import given
from hypothesis import strategies as st

from controller.management.verbs import figures, terminal
from controller.management.verbs.terminal import Cleaner, Console, harmless

HOSTILE = (
    b"plain \x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b]52;c;Y2F0\x1b\\ \x1bPq#0\x1b\\ \x1bc \x9b2J"
    b" \xc2\x9b2J tab\there bell\x07 back\x08 \r over \xff end\n"
)


def cleaned(pieces: list[bytes]) -> str:
    cleaner = Cleaner()
    return "".join(cleaner.clean(piece) for piece in pieces) + cleaner.clean(b"", is_last=True)


def test_escapes_and_controls_go_and_text_stays() -> None:
    text = cleaned([HOSTILE])
    assert text.startswith("plain red ")
    assert text.endswith(" end\n")
    assert "tab\there" in text
    for word in ("title", "52;c", "\x1b", "\x07", "\x08", "\r", "\x9b"):
        assert word not in text


@given(st.lists(st.integers(min_value=0, max_value=len(HOSTILE)), max_size=6))
def test_cuts_anywhere_change_nothing(cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(HOSTILE)]
    pieces = [HOSTILE[a:b] for a, b in itertools.pairwise(ends)]
    assert cleaned(pieces) == cleaned([HOSTILE])


@given(st.lists(st.binary(max_size=40)))
def test_no_bytes_at_all_reach_a_terminal_as_control(pieces: list[bytes]) -> None:
    text = cleaned(pieces)
    assert not [c for c in text if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160]


def test_an_escape_without_an_end_is_not_held_for_ever() -> None:
    cleaner = Cleaner()
    text = cleaner.clean(b"\x1b]0;" + b"x" * 10_000)
    assert text.endswith("xxx")
    assert "\x1b" not in text


@pytest.mark.parametrize("begin", [b"\x1b]", b"\x1bP", b"\x1b[", b"\x1b", b"\x1b]\x1b"])
def test_a_file_full_of_beginnings_is_cleaned_in_time_that_grows_with_its_length(
    begin: bytes,
) -> None:
    begun_at = time.process_time()
    text = cleaned([begin * ((1 << 20) // len(begin)), b"the end\n"])
    assert "\x1b" not in text
    assert time.process_time() - begun_at < 60  # searched to the end for each it took hours


def test_an_escape_within_a_string_ends_it_wherever_it_is_cut() -> None:
    text = b"\x1b]0;ti\x1b[31mtle\x1b[0m shown\x07\n"
    whole = cleaned([text])
    assert "shown" in whole
    assert {cleaned([text[:cut], text[cut:]]) for cut in range(len(text))} == {whole}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_lines_are_harmless(stream: io.StringIO) -> None:
    out = OutputWrapper(stream)
    Console(out, out).line("name \x1b[2J of a job")
    assert stream.getvalue() == "name  of a job\n"


def test_a_bar_is_drawn_on_a_terminal_alone() -> None:
    plain, terminal = io.StringIO(), Terminal()
    for stream in (plain, terminal):
        bar = Console(OutputWrapper(stream), OutputWrapper(stream)).bar()
        bar.show("2 of 4", 0.5)
        bar.clear()
    assert plain.getvalue() == ""
    assert "[############............] 2 of 4, 0 s" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")


def test_a_bar_shows_that_a_transfer_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "TICK_S", 0.01)
    monkeypatch.setattr(figures, "WINDOW_S", 0.4)
    stream = Terminal()
    console = Console(OutputWrapper(stream), OutputWrapper(stream))
    deadline = time.monotonic() + 30
    with console.bar() as bar:
        bar.progress("a\x1b[2J file", 10**6, 4 * 10**6)
        while "stalled" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "a file  [######..................]   25 %  1.00 MB of 4.00 MB  stalled" in (
        stream.getvalue()
    )
    assert stream.getvalue().endswith(" \r")
    assert max(len(line) for line in stream.getvalue().split("\r")) < 80


def test_a_bar_that_nobody_wants_or_sees_is_not_drawn() -> None:
    for stream, is_wanted in ((Terminal(), False), (io.StringIO(), True)):
        console = Console(OutputWrapper(stream), OutputWrapper(stream))
        with console.bar(is_wanted) as bar:
            bar.progress("x", 1, None)
            bar.show("y")
        assert stream.getvalue() == ""


def test_a_long_text_beside_a_bar_does_not_wrap() -> None:
    stream = Terminal()
    Console(OutputWrapper(stream), OutputWrapper(stream)).bar().show("x" * 300, 0.5)
    assert len(stream.getvalue().strip("\r")) == 79


def test_bytes_stay_as_they_are_on_a_terminal_only_on_request() -> None:
    raw = io.BytesIO()

    class Screen(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    stream = Screen(raw, encoding="utf-8")
    console = Console(OutputWrapper(stream), OutputWrapper(io.StringIO()))
    console.raw(b"\x1b[1mclean\n", Cleaner())
    console.raw(b"\x1b[1mraw\n", None)
    assert raw.getvalue() == b"clean\n\x1b[1mraw\n"


def test_bytes_go_into_a_pipe_as_they_are() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8")
    console = Console(OutputWrapper(stream), OutputWrapper(io.StringIO()))
    console.line("first")
    console.raw(HOSTILE, Cleaner())
    assert raw.getvalue() == b"first\n" + HOSTILE


def test_a_table_is_aligned_and_harmless() -> None:
    stream = io.StringIO()
    Console(OutputWrapper(stream), OutputWrapper(stream)).table(("A", "B"), [("x\x1b[1m", None)])
    assert stream.getvalue() == "A  B\nx\n"
    assert harmless("\x1b[1mx") == "x"
