"""What the verbs write to: lines, JSON, a bar, and text from a cluster made harmless."""

from __future__ import annotations

import codecs
import json
import re
import time
from collections.abc import Sequence
from typing import Any

from django.core.management.base import OutputWrapper

from ... import errors

# CSI, OSC and other string sequences, and two-character escapes.
# Source: https://invisible-island.net/xterm/ctlseqs/ctlseqs.html
ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\)"
    r"|\x1b[ -/]*[0-OQ-WYZ\\`-~]",
    re.DOTALL,
)
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
LONGEST_ESCAPE = 4096
BAR_WIDTH = 24


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
        text = ESCAPES.sub("", self._held + self._decoder.decode(data, is_last))
        start = text.find("\x1b")
        is_open = start >= 0 and len(text) - start < LONGEST_ESCAPE and not is_last
        self._held = text[start:] if is_open else ""
        return CONTROLS.sub("", text[: len(text) - len(self._held)])


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

    def raw(self, data: bytes, cleaner: Cleaner, is_last: bool = False) -> None:
        """Bytes of a file: as they are into a pipe or file, made harmless on a terminal."""
        target = getattr(self._stdout, "_out", self._stdout)
        buffer = getattr(target, "buffer", None)
        if self.is_terminal or buffer is None:
            _write(self._stdout, cleaner.clean(data, is_last))
            return
        target.flush()
        buffer.write(data)
        buffer.flush()

    def bar(self) -> Bar:
        """A bar on stderr; nothing is drawn if that is no terminal."""
        return Bar(self._stderr)


class Bar:
    """One line that is drawn over itself: how much is done, of what, for how long."""

    def __init__(self, stream: OutputWrapper) -> None:
        self._stream = stream
        self._is_drawn = bool(stream.isatty())
        self._started = time.monotonic()
        self._width = 0

    def show(self, text: str, done: float | None = None) -> None:
        """Draw `text`, with a bar if it is known how much of the whole (0..1) is done."""
        if not self._is_drawn:
            return
        drawn = f"{harmless(text)}, {time.monotonic() - self._started:.0f} s"
        if done is not None:
            filled = round(BAR_WIDTH * min(max(done, 0.0), 1.0))
            drawn = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {drawn}"
        _write(self._stream, "\r" + drawn.ljust(self._width))
        self._width = len(drawn)

    def clear(self) -> None:
        """Take the line away again."""
        if self._is_drawn and self._width:
            _write(self._stream, "\r" + " " * self._width + "\r")
            self._width = 0


def _write(stream: OutputWrapper, text: str) -> None:
    stream.write(text, _unstyled, ending="")
    stream.flush()


def _unstyled(text: str) -> str:
    return text
