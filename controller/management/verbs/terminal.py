"""What the verbs write to: lines, JSON, a bar, and text from a cluster made harmless."""

from __future__ import annotations

import codecs
import json
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from django.core.management.base import OutputWrapper

from ... import errors
from . import figures

# CSI, OSC and other string sequences, and two-character escapes. What ends a string ends the search
# too: a file full of beginnings would else be searched to its end for each of them.
# Source: https://invisible-island.net/xterm/ctlseqs/ctlseqs.html
# Source: https://vt100.net/emu/dec_ansi_parser, "anywhere": CAN, SUB and ESC
ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_][^\x07\x18\x1a\x1b]*(?:\x07|\x1b\\)"
    r"|\x1b[ -/]*[0-OQ-WYZ\\`-~]"
)
BEGUN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x18\x1a\x1b]*\x1b?|[ -/]*)\Z")
"""What may be the beginning of such an escape, at the end of a text."""
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
LONGEST_ESCAPE = 4096
DRAWN_EVERY_S = 0.1
TICK_S = 1.0
"""A transfer that stands still shows it: its line is drawn anew though nothing came."""
USUAL_COLUMNS = 80


class WrongUsage(errors.HpcError):
    """What the parser can't see is wrong with a command line: it ends with 2."""

    code = "wrong_usage"


class Cleaner:
    """Takes terminal escapes and control characters out of bytes that come in pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def clean(self, data: bytes, is_last: bool = False) -> str:
        """The harmless text of `data`; an escape that is not complete yet is held back."""
        text = self._held + self._decoder.decode(data, is_last)
        begun = None if is_last else BEGUN.search(text)
        is_held = begun is not None and len(begun[0]) < LONGEST_ESCAPE
        self._held = begun[0] if begun is not None and is_held else ""
        return harmless(text[: len(text) - len(self._held)])


def harmless(text: str) -> str:
    """The text without what a terminal would obey."""
    return CONTROLS.sub("", ESCAPES.sub("", text))


class Console:
    """Where a verb speaks: `line` and `document` to stdout, `note` and bars to stderr."""

    def __init__(self, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
        self._stdout = stdout
        self._stderr = stderr

    @property
    def is_terminal(self) -> bool:
        return bool(self._stdout.isatty())

    @property
    def is_saved(self) -> bool:
        """Whether stdout is a file."""
        try:
            return stat.S_ISREG(os.fstat(self._stdout.fileno()).st_mode)
        except (OSError, ValueError, AttributeError):
            return False

    def abandon(self) -> None:
        """Forget what stdout would not take: the interpreter's flush at exit must not complain."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def line(self, text: str = "") -> None:
        """One line for people on stdout, at once."""
        _write(self._stdout, harmless(text) + "\n")

    def note(self, text: str) -> None:
        """One line for people on stderr."""
        _write(self._stderr, harmless(text) + "\n")

    def document(self, value: Any) -> None:
        """The one JSON document of a reading verb."""
        _write(self._stdout, json.dumps(value, indent=2, sort_keys=False) + "\n")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Rows in aligned columns."""
        cells = [[harmless("" if v is None else str(v)) for v in row] for row in (head, *rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
        for row in cells:
            self.line("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())

    def raw(self, data: bytes, cleaner: Cleaner | None, is_last: bool = False) -> None:
        """Bytes of a file: as they are into a pipe or file, made harmless on a terminal.

        Without a cleaner they are left as they are there too.
        """
        target = getattr(self._stdout, "_out", self._stdout)
        buffer = getattr(target, "buffer", None)
        if buffer is None or (self.is_terminal and cleaner is not None):
            _write(self._stdout, (cleaner or Cleaner()).clean(data, is_last))
            return
        target.flush()
        buffer.write(data)
        buffer.flush()

    def bar(self, is_wanted: bool = True) -> Bar:
        """A bar on stderr; nothing is drawn if that is no terminal, or none is wanted."""
        return Bar(self._stderr, is_wanted)


class Bar:
    """One line that is drawn over itself: how much is done, of what, for how long.

    As a context it also shows that time goes by while nothing else does, and takes itself away.
    """

    def __init__(self, stream: OutputWrapper, is_wanted: bool = True) -> None:
        self._stream = stream
        self._is_drawn = is_wanted and bool(stream.isatty())
        self._started = time.monotonic()
        self._width = 0
        self._rate = figures.Rate()
        self._transfer: tuple[str, int, int | None] | None = None
        self._drawn_at = 0.0
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="hpc-bar", daemon=True)

    def __enter__(self) -> Self:
        if self._is_drawn:
            self._ticker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        if self._ticker.is_alive():
            self._ticker.join()
        self.clear()

    def show(self, text: str, done: float | None = None) -> None:
        """Draw `text`, with a bar if it is known how much of the whole (0..1) is done."""
        if not self._is_drawn:
            return
        drawn = f"{harmless(text)}, {time.monotonic() - self._started:.0f} s"
        if done is not None:
            drawn = f"{figures.bar(done)} {drawn}"
        with self._lock:
            self._draw(figures.clipped(drawn, self._columns()))

    def progress(self, name: str, done_bytes: int, size_bytes: int | None) -> None:
        """Show how much of a file was moved: percent, rate, time left, as far as there is room."""
        if not self._is_drawn:
            return
        with self._lock:
            self._transfer = (harmless(name), done_bytes, size_bytes)
            if time.monotonic() - self._drawn_at >= DRAWN_EVERY_S:
                self._draw_transfer()

    def clear(self) -> None:
        """Take the line away again."""
        with self._lock:
            if self._is_drawn and self._width:
                _write(self._stream, "\r" + " " * self._width + "\r")
                self._width = 0

    def _tick(self) -> None:
        while not self._is_over.wait(TICK_S):
            with self._lock:
                try:
                    self._draw_transfer()
                except OSError:
                    return  # the terminal is gone, and so will be who looks at it

    def _draw_transfer(self) -> None:
        if self._transfer is None:
            return
        name, done_bytes, size_bytes = self._transfer
        now = self._drawn_at = time.monotonic()
        self._rate.add(now, done_bytes)
        self._draw(
            figures.progress(
                name,
                done_bytes,
                size_bytes,
                self._rate.per_second(),
                now - self._started,
                self._columns(),
            )
        )

    def _draw(self, line: str) -> None:
        drawn = figures.width(line)
        _write(self._stream, "\r" + line + " " * (self._width - drawn))
        self._width = drawn

    def _columns(self) -> int:
        """Columns that a line may take; the last stays free, for there some terminals wrap."""
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError, AttributeError):
            columns = 0
        return (columns or USUAL_COLUMNS) - 1


def _write(stream: OutputWrapper, text: str) -> None:
    stream.write(text, _unstyled, ending="")
    stream.flush()


def _unstyled(text: str) -> str:
    return text
