"""How times, words and texts from the cluster look on a page."""

from __future__ import annotations

import unicodedata
from datetime import datetime, timedelta

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.timesince import timesince

register = template.Library()

HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories that move the cursor, turn the writing, or show nothing.
Source: https://www.unicode.org/reports/tr44/#General_Category_Values"""

LINE_ENDS = "\n\t"
MINUTE = timedelta(minutes=1)


@register.filter
def visible(value: object) -> str:
    """The text with each character that hides or moves others written out, such as `\\x1b`."""
    text = str(value).replace("\r\n", "\n")
    if text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


@register.filter
def moment(value: datetime | None) -> str:
    """A time as the distance from now, with the exact one at hand: `12 s ago`, `in 3 minutes`."""
    return "never" if value is None else _time(value, _distance(value))


@register.filter
def due(value: datetime) -> str:
    """When something is tried again: `in 40 s`, or `now` if its time has come."""
    return moment(value) if value > timezone.now() else "now"


@register.filter
def clock(value: datetime | None) -> str:
    """The time if it is today, else the date too; with the exact one at hand."""
    if value is None:
        return ""
    local = timezone.localtime(value)
    is_today = local.date() == timezone.localdate()
    return _time(value, local.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M"))


@register.filter
def seconds(value: float | None) -> str:
    """A duration: `0.42 s`, `7.3 s`, `2 min 5 s`, `3 h 4 min`."""
    if value is None:
        return ""
    if value < 1:
        return f"{value:.2f} s"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


@register.filter
def words(value: object) -> str:
    """The word of a reason as people write it: `login_refused` is `login refused`."""
    return str(value).replace("_", " ")


def _shown(character: str) -> str:
    if character in LINE_ENDS or unicodedata.category(character) not in HIDDEN:
        return character
    return character.encode("unicode_escape").decode()


def _time(value: datetime, text: str) -> str:
    local = timezone.localtime(value)
    exact = local.strftime("%Y-%m-%d %H:%M:%S %Z")
    return format_html('<time datetime="{}" title="{}">{}</time>', local.isoformat(), exact, text)


def _distance(value: datetime) -> str:
    now = timezone.now()
    gone = abs(now - value)
    if gone < timedelta(seconds=1):
        return "just now"
    far = f"{gone.seconds} s" if gone < MINUTE else timesince(now - gone, now, depth=1)
    return f"{far} ago" if value < now else f"in {far}"
