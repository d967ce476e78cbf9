"""Commands are put so that no shell finds anything special in them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.links import remote_shell

LINE = re.compile(r"exec /bin/sh -c 'eval \"\$\(printf %b \"([^']*)\"\)\"'")
WORDS = st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), max_size=5)


def decoded(text: str) -> str:
    """What /bin/sh makes of it."""
    found = LINE.fullmatch(text)
    assert found, text
    data = re.sub(rb"\\0([0-3][0-7]{2})", lambda m: bytes([int(m[1], 8)]), found[1].encode())
    return data.decode()


@given(WORDS)
def test_only_plain_characters_and_escapes_are_sent(argv: list[str]) -> None:
    text = remote_shell.command(["echo", *argv]).text
    found = LINE.fullmatch(text)
    assert found, text
    assert re.fullmatch(r"([A-Za-z0-9 _./=:,+@-]|\\0[0-3][0-7]{2})*", found[1])


def test_code_comes_back_as_it_was() -> None:
    code = "printf '%s' \"$HOME\" !! `x` \\ é\n"
    assert decoded(remote_shell.in_any_shell(code)) == code


def test_command_waits_for_its_word() -> None:
    command = remote_shell.command(["/bin/echo", "a b"], "n1")
    code = decoded(command.text)
    assert code.endswith("exec /bin/echo 'a b'")
    assert command.ready == b"\nHPC-READY-n1\n"
    assert command.go == b"HPC-GO-n1\n"
    assert command.preamble.count(b"\n") == remote_shell.PREAMBLE_LINES


def test_words_differ_each_time() -> None:
    assert remote_shell.command(["a"]).ready != remote_shell.command(["a"]).ready


def test_nul_is_refused() -> None:
    with pytest.raises(ValueError):
        remote_shell.command(["a\0b"])
