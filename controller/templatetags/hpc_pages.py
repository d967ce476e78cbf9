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
CONTROL_PICTURES = 0x2400
DELETE = 0x7F
PICTURE_OF_DELETE = "\u2421"
REPLACEMENT = "\ufffd"
MINUTE = timedelta(minutes=1)


@register.filter
def visible(value: object) -> str:
    """The text with each character that hides or moves others replaced by a visible one."""
    text = str(value).replace("\r\n", "\n")
    if text.isprintable():
        return text
    return "".join(_picture(character) for character in text)


@register.filter
def moment(value: datetime | None) -> str:
    """A time as the distance from now, with the exact one at hand: `12 s ago`, `in 3 minutes`."""
    if value is None:
        return "never"
    local = timezone.localtime(value)
    exact = local.strftime("%Y-%m-%d %H:%M:%S %Z")
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', local.isoformat(), exact, _distance(value)
    )


@register.filter
def clock(value: datetime | None) -> str:
    """The time of the day, with date and zone at hand."""
    if value is None:
        return ""
    local = timezone.localtime(value)
    exact = local.strftime("%Y-%m-%d %H:%M:%S %Z")
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        local.isoformat(),
        exact,
        local.strftime("%H:%M:%S"),
    )


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


def _picture(character: str) -> str:
    if character in LINE_ENDS or unicodedata.category(character) not in HIDDEN:
        return character
    if ord(character) < ord(" "):
        return chr(CONTROL_PICTURES + ord(character))
    return PICTURE_OF_DELETE if ord(character) == DELETE else REPLACEMENT


def _distance(value: datetime) -> str:
    now = timezone.now()
    gone = now - value
    if abs(gone) < timedelta(seconds=1):
        return "just now"
    far = (
        f"{abs(gone).seconds} s"
        if abs(gone) < MINUTE
        else timesince(min(value, now), max(value, now), depth=1)
    )
    # timesince joins number and unit by a space that does not break.
    return f"{far} ago" if value < now else f"in {far}"
