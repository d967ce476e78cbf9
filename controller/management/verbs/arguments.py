"""Values on the command line, checked before anything is done."""

from __future__ import annotations

from argparse import ArgumentTypeError

DIGITS_MOST = 18


def natural(text: str) -> int:
    """A whole number, 0 too."""
    if not text.isascii() or not text.isdigit() or len(text) > DIGITS_MOST:
        raise ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def count(text: str) -> int:
    """A whole number above 0, such as an id."""
    if not text.isascii() or not text.isdigit() or len(text) > DIGITS_MOST or not int(text):
        raise ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)
