"""PURE: sizes, rates and times as people read them, and text that fits a terminal's line."""

from __future__ import annotations

import unicodedata
from collections import deque

UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")
"""Decimal, as disks and networks are sold: the rate times the time is the size."""

WINDOW_S = 5.0
"""A rate is that of the last seconds: what was before a pause says nothing about what is left."""

LONGEST_S = 100 * 3600
ELLIPSIS = "…"
BAR_WIDTH = 24
NAME_WIDTH = 12
"""Columns that a name keeps at least, where it is shown at all."""


def size(count: float) -> str:
    """`count` bytes in three digits: `812 bytes`, `1.21 MB`."""
    unit = 0
    while abs(count) >= 999.5 and unit < len(UNITS) - 1:
        count /= 1000
        unit += 1
    if not unit:
        return f"{count:.0f} {UNITS[0] if count != 1 else 'byte'}"
    decimals = 2 if abs(count) < 9.995 else 1 if abs(count) < 99.95 else 0
    return f"{count:.{decimals}f} {UNITS[unit]}"


def duration(seconds: float) -> str:
    """`0:07`, `12:30`, `3:05:00`; nothing that a person would wait for is longer than 100 hours."""
    if not seconds < LONGEST_S:
        return "100 h or more"
    minutes, second = divmod(round(max(seconds, 0.0)), 60)  # a file that grew has negative rest
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class Rate:
    """Bytes a second over the last WINDOW_S, from how much was done when."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now_s: float, done_bytes: int) -> None:
        """Note how much was done at a moment; the moments never go back."""
        self._samples.append((now_s, done_bytes))
        # The newest that is older than the window stays: it is where the window begins.
        while len(self._samples) > 2 and self._samples[1][0] <= now_s - WINDOW_S:
            self._samples.popleft()

    def per_second(self) -> float | None:
        """None as long as there is too little to tell."""
        if len(self._samples) < 2:
            return None
        (began_s, first), (ended_s, last) = self._samples[0], self._samples[-1]
        if ended_s - began_s < 0.3:
            return None
        return max(last - first, 0) / (ended_s - began_s)


def width(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return sum(_columns(character) for character in text)


def shortened(text: str, columns: int) -> str:
    """The text in at most so many columns; of a path the end is what tells it from others."""
    if width(text) <= columns:
        return text
    kept: list[str] = []
    left = columns - 1
    for character in reversed(text):
        left -= _columns(character)
        if left < 0:
            break
        kept.append(character)
    return (ELLIPSIS if columns > 0 else "") + "".join(reversed(kept))


def clipped(text: str, columns: int) -> str:
    """The beginning of the text, in at most so many columns."""
    kept: list[str] = []
    left = columns
    for character in text:
        left -= _columns(character)
        if left < 0:
            break
        kept.append(character)
    return "".join(kept)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def bar(part: float) -> str:
    """How much of the whole (0..1) is done, drawn."""
    filled = round(BAR_WIDTH * min(max(part, 0.0), 1.0))
    return f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}]"


def progress(
    name: str,
    done_bytes: int,
    size_bytes: int | None,
    per_second: float | None,
    elapsed_s: float,
    columns: int,
) -> str:
    """One line, never wider than `columns`: what matters least goes first where it is narrow."""
    speed = []
    if done_bytes and per_second is not None:
        speed = [f"{size(per_second)}/s" if per_second else "stalled"]
    if size_bytes is None:
        amount = [size(done_bytes)]
        layouts = [[*amount, *speed, duration(elapsed_s)], [*amount, *speed], amount]
    else:
        part = done_bytes / size_bytes if size_bytes else 1.0
        percent = f"{min(int(100 * part), 100):3} %"
        left = [f"{duration((size_bytes - done_bytes) / per_second)} left"] if per_second else []
        amount = [f"{size(done_bytes)} of {size(size_bytes)}"]
        layouts = [
            [bar(part), percent, *amount, *speed, *left],
            [percent, *amount, *speed, *left],
            [percent, *speed, *left],
            [percent, *left],
            [percent],
        ]
    return _fitting(name, ["  ".join(layout) for layout in layouts], columns)


def _fitting(name: str, layouts: list[str], columns: int) -> str:
    for layout in layouts:
        room = columns - width(layout) - 2
        if room >= min(width(name), NAME_WIDTH):
            return f"{shortened(name, room)}  {layout}"
    return next((layout for layout in layouts if width(layout) <= columns), "")
