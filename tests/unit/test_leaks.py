"""The search for secrets finds them: in every form, and wherever it looks."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops import processes
from tests import leaks

WORD = "k7Qx09vTzP3mWd5R"
BETWEEN = st.binary(max_size=40)


@given(BETWEEN, BETWEEN, st.text("abcXYZ019", min_size=leaks.LEAST, max_size=60))
def test_a_word_is_found_in_whatever_it_is_encoded(before: bytes, after: bytes, word: str) -> None:
    words = leaks.Words({"it": word})
    data = before + word.encode() + after
    for written in (data, base64.b64encode(data), base64.urlsafe_b64encode(data)):
        assert words.within(written) == {"it"}
    assert words.within(data.hex().encode()) == {"it"}


def test_a_word_is_found_in_what_a_queue_holds() -> None:
    body = base64.b64encode(json.dumps([[], {"password": f' "ü {WORD}\\'}, {}]).encode())
    message = json.dumps({"body": body.decode(), "headers": {}})
    assert leaks.Words({"it": WORD}).within(repr([message]).encode()) == {"it"}
    assert leaks.Words({"it": WORD}).within(urllib.parse.quote(f"ü'{WORD} ").encode()) == {"it"}


def test_others_are_not_found() -> None:
    words = leaks.Words({"a": WORD, "b": WORD[::-1]})
    assert words.find([("x", WORD[:-1].encode()), ("y", os.urandom(100))]) == set()
    both = f"{WORD} {WORD[::-1]}".encode()
    assert words.find([("x", both), ("y", WORD.encode())]) == {("x", "a"), ("x", "b"), ("y", "a")}


def test_a_word_that_chance_could_make_is_refused() -> None:
    with pytest.raises(AssertionError, match="too short"):
        leaks.Words({"it": "short"})


def test_files_are_read_whole(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("x" * 100_000 + WORD)
    assert leaks.Words({"it": WORD}).find(leaks.texts("log", [log])) == {("log", "it")}


def test_processes_are_watched_from_their_start() -> None:
    words = leaks.Words({"it": WORD, "other": WORD[::-1]})
    sleep = "import sys; print(flush=True); sys.stdin.read()"
    with leaks.Processes(words) as watch:
        one = subprocess.Popen(
            [sys.executable, "-c", sleep, f"--password={WORD}"],
            env={"OTHER": WORD[::-1]},
            stdin=subprocess.PIPE,
        )
        assert processes.wait_until(lambda: len(watch.shown()) == 2, 10)
        one.communicate(timeout=10)
        seen = {(shown.pid, shown.place, shown.name) for shown in watch.shown()}
        assert seen == {(one.pid, "argv", "it"), (one.pid, "environ", "other")}
        assert {shown.uid for shown in watch.shown()} == {os.geteuid()}
        assert {shown.mode for shown in watch.shown()} == {0o400}
        (left,) = watch.shown(own=[one.pid], allowed={"it", "other"})
        assert left.place == "argv"
        assert len(watch.shown(own=[one.pid + 1], allowed={"it", "other"})) == 2
