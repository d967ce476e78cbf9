"""Sizes, rates and lines of a bar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.management.verbs import figures


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (12_340_000, "12.3 MB"),
        (5 << 30, "5.37 GB"),
        (10**30, "1000000000000 EB"),
        (-5, "-5 bytes"),
    ],
)
def test_sizes_have_three_digits(count: int, text: str) -> None:
    assert figures.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (750, "12:30"), (11_100, "3:05:00"), (1e12, "100 h or more")],
)
def test_durations(seconds: float, text: str) -> None:
    assert figures.duration(seconds) == text
    assert figures.duration(float("inf")) == figures.duration(float("nan")) == "100 h or more"


def test_a_rate_is_that_of_the_last_seconds() -> None:
    rate = figures.Rate()
    rate.add(0.0, 0)
    assert rate.per_second() is None
    for second in range(1, 11):
        rate.add(float(second), 100 * second)
    assert rate.per_second() == 100
    for second in range(11, 21):
        rate.add(float(second), 1000 + 10 * (second - 10))
    assert rate.per_second() == 10
    for second in range(21, 31):
        rate.add(float(second), 1100)
    assert rate.per_second() == 0


def line(columns: int, size_bytes: int | None = 10**9, rate: float | None = 10**7) -> str:
    return figures.progress("run/results-of-march.tar", 25 * 10**7, size_bytes, rate, 25, columns)


def test_a_wide_terminal_shows_all() -> None:
    assert line(120) == (
        "run/results-of-march.tar  [######..................]   25 %  250 MB of 1.00 GB"
        "  10.0 MB/s  1:15 left"
    )


def test_what_matters_least_goes_first() -> None:
    assert line(79) == "run/results-of-march.tar   25 %  250 MB of 1.00 GB  10.0 MB/s  1:15 left"
    assert line(60) == "…f-march.tar   25 %  250 MB of 1.00 GB  10.0 MB/s  1:15 left"
    assert line(47) == "…ults-of-march.tar   25 %  10.0 MB/s  1:15 left"
    assert line(30).endswith("25 %  1:15 left")
    assert line(9) == " 25 %"
    assert line(3) == ""


def test_what_is_not_known_is_left_out() -> None:
    assert line(120, size_bytes=None).endswith(".tar  250 MB  10.0 MB/s  0:25")
    assert line(120, rate=None).endswith("250 MB of 1.00 GB")
    assert line(120, rate=0).endswith("250 MB of 1.00 GB  stalled")
    assert figures.progress("x", 0, None, 0, 3, 80) == "x  0 bytes  0:03"
    assert figures.progress("empty", 0, 0, None, 0, 80).endswith("100 %  0 bytes of 0 bytes")


@given(
    st.text(max_size=60),
    st.integers(0, 2**70),
    st.none() | st.integers(0, 2**70),
    st.none() | st.floats(0, 1e20),
    st.integers(0, 200),
)
def test_a_line_never_is_wider_than_the_terminal(
    name: str, done: int, size: int | None, rate: float | None, columns: int
) -> None:
    assert figures.width(figures.progress(name, done, size, rate, 1.0, columns)) <= columns


@given(st.text(), st.integers(0, 30))
def test_shortened_text_fits_and_keeps_its_end(text: str, columns: int) -> None:
    short = figures.shortened(text, columns)
    assert figures.width(short) <= columns
    assert text.endswith(short.removeprefix(figures.ELLIPSIS))
    assert figures.width(figures.clipped(text, columns)) <= columns
    assert text.startswith(figures.clipped(text, columns))


def test_wide_characters_take_two_columns() -> None:
    assert figures.width("漢字e\u0301") == 5
    assert figures.shortened("漢字漢字", 5) == "…漢字"
