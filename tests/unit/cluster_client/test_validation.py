from __future__ import annotations

import hashlib

import pytest

from cluster_client import errors, validation
from cluster_client.protocol import messages

TAG = "j" + "a2z7" * 3 + "bc"


def submit(script="#!/bin/sh\n", **changes):
    sha256 = hashlib.sha256(script.encode("utf-8", "replace")).hexdigest()
    fields = {"tag": TAG, "attempt": 1, "script": script, "script_sha256": sha256, **changes}
    return messages.Submit(**fields)


def test_a_good_submission_gives_the_bytes_of_its_script():
    script = "#! /usr/bin/env python3\nprint('größer')"
    assert validation.submission(submit(script)) == script.encode()


@pytest.mark.parametrize(
    "tag",
    ["", "j", "../../../etc/x", "j" + "a" * 13, "j" + "a" * 15, "J" + "a" * 14, TAG + "\n",
     "j" + "1" * 14, "k" + "a" * 14, "j" + "a" * 13 + "/", ".trash"],
)  # fmt: skip
def test_only_a_tag_is_a_tag(tag):
    with pytest.raises(errors.InvalidRequest):
        validation.tag(tag)


@pytest.mark.parametrize(
    ("script", "word"),
    [
        ("", "empty"),
        ("#!/bin/sh\n\0", "NUL"),
        ("#!/bin/sh\r\necho\r\n", "CRLF"),
        ("echo hello\n", "#!"),
        ("#!\n", "#!"),
        ("#!bash\n", "#!"),
        ("#!/bin/sh\n" + "#" * messages.SCRIPT_LIMIT_BYTES, "larger"),
    ],
)
def test_a_script_that_no_scheduler_takes_is_refused_with_a_sentence(script, word):
    with pytest.raises(errors.InvalidRequest, match=word):
        validation.submission(submit(script))


@pytest.mark.parametrize(
    "changes",
    [
        {"script_sha256": "0" * 64},
        {"attempt": 0},
        {"limit_s": 0.0},
        {"limit_s": float("inf")},
        {"limit_s": float("nan")},
        {"environment": {"A B": ""}},
        {"environment": {"A": "x\0y"}},
        {"environment": {"": ""}},
        {"environment": {"A": "x" * 131072}},
        {"script": "#!/bin/sh\n\ud800"},
    ],
)
def test_what_can_not_be_meant_is_refused(changes):
    with pytest.raises(errors.InvalidRequest):
        validation.submission(submit(**changes))
