"""Names of files: harmless on a terminal, and still the same file in a shell."""

from __future__ import annotations

import base64
import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller import errors
from controller.management.verbs import names

HOSTILE = (
    b"plain.txt",
    b"two words",
    b"it's",
    b"\xff\xfe not text",
    b"\x1b]52;c;Y2F0\x07",
    b"a\nb\tc\rd",
    "ümlaut 漢字".encode(),
    "\u202egnirts".encode(),
    b"$(reboot)`id`",
    b"back\\slash \x01'5",
    b"~root",
    b"\x1b8",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_can_be_pasted_into_a_shell(name: bytes) -> None:
    quoted = names.quoted(name)
    assert quoted.isprintable()
    said = subprocess.run(
        ["bash", "-c", f"printf %s {quoted}"],
        env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
        capture_output=True,
        check=True,
    )
    assert said.stdout == name
    assert names.quoted(os.fsdecode(name)) == quoted


def test_what_a_shell_takes_as_it_stands_is_not_quoted() -> None:
    assert names.quoted("run-1/out_%a,b:c@d+e=f.log") == "run-1/out_%a,b:c@d+e=f.log"
    assert names.quoted("größe") == "größe"
    assert names.quoted("a b") == "'a b'"
    assert names.quoted(b"\x1b[2J") == "$'\\033[2J'"
    assert names.quoted("") == "''"


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_no_name_reaches_a_terminal_as_more_than_print(name: bytes) -> None:
    assert names.quoted(name).isprintable()


@pytest.mark.parametrize("told", ["", "YS9i", "YQBi", "no base64!", 7, None])
def test_a_name_that_no_file_can_have_is_refused(told: object) -> None:
    with pytest.raises(errors.Refused, match="bootstrap"):
        names.of_entry({"name": "x\x1b[2J", "name_b64": told})
    with pytest.raises(errors.Refused):
        names.of_entry({})


def test_an_exact_name_is_taken() -> None:
    told = base64.b64encode(b"\xff\n").decode()
    assert names.of_entry({"name": "??", "name_b64": told}) == b"\xff\n"


@pytest.mark.parametrize(
    ("path", "last"),
    [("a/b.txt", "b.txt"), ("b", "b"), ("a/", ""), ("a/..", ""), (".", ""), ("", ""), ("..", "")],
)
def test_the_last_name_of_a_path_never_leads_elsewhere(path: str, last: str) -> None:
    assert names.last_of(path) == last


def test_a_path_is_told_lossy_and_exact() -> None:
    told = names.described("a/\udcff")
    assert told == {"path": "a/�", "path_b64": base64.b64encode(b"a/\xff").decode()}
