"""What the filters of the pages make of times, durations and texts from the cluster."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from controller.templatetags import hpc_pages


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ä and 漢", "plain, ä and 漢"),
        ("two\r\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31mred\x07\x00\x7f", "\\x1b[31mred\\x07\\x00\\x7f"),
        ("\u202egnirts\u200b\u2028", "\\u202egnirts\\u200b\\u2028"),
        ("\rover", "\\rover"),
    ],
)
def test_what_hides_or_moves_others_is_written_out(text: str, shown: str) -> None:
    assert hpc_pages.visible(text) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""), (0.004, "0.00 s"), (0.42, "0.42 s"), (7.26, "7.3 s"), (125, "2 min 5 s"),
        (11_050, "3 h 4 min"),
    ],
)  # fmt: skip
def test_durations_are_told_in_fitting_units(value: float | None, shown: str) -> None:
    assert hpc_pages.seconds(value) == shown


@pytest.mark.parametrize(
    ("distance_s", "shown"),
    [(0, "just now"), (-12.5, "12 s ago"), (30.5, "in 30 s"), (-7300, "2\xa0hours ago")],
)
def test_a_moment_is_told_as_its_distance(distance_s: float, shown: str) -> None:
    value = timezone.now() + timedelta(seconds=distance_s)
    assert f">{shown}<" in hpc_pages.moment(value)


def test_a_time_without_a_value_is_told() -> None:
    assert hpc_pages.moment(None) == "never"
    assert hpc_pages.clock(None) == ""


def test_what_is_due_is_due_now() -> None:
    now = timezone.now()
    assert hpc_pages.due(now - timedelta(minutes=1)) == "now"
    assert "in 5" in hpc_pages.due(now + timedelta(seconds=58))


def test_the_date_is_told_of_what_was_not_today() -> None:
    before = timezone.now() - timedelta(days=3)
    assert f">{before:%Y-%m-%d %H:%M}<" in hpc_pages.clock(before)
