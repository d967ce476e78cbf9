"""What the program on the cluster says becomes a sentence that tells what to do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from workers.links import bridge, errors, upload

PLACE = bridge.Installation("/home/ada/client")


class Answering:
    """A carrier whose commands all give one answer, and the channel to them."""

    def __init__(self, **answer: object) -> None:
        self._said = b"HPC-BRIDGE 1 " + json.dumps(answer).encode() + b"\n"

    def open(self, argv: Sequence[str]) -> Any:
        return self

    def recv(self, size: int) -> bytes:
        said, self._said = self._said, b""
        return said

    def unread(self, data: bytes) -> None:
        self._said = data

    def settimeout(self, limit_s: float | None) -> None: ...

    def shutdown(self, how: int) -> None: ...

    def stderr_tail(self) -> str:
        return ""

    def close(self) -> None: ...


class Noisy(Answering):
    """One whose account has a profile that talks."""

    def __init__(self, **answer: object) -> None:
        self._said = b"Welcome!\n[1]\n{}\n" + json.dumps(answer).encode() + b"\n"


@pytest.mark.parametrize(
    ("code", "reason", "is_transient", "words"),
    [
        ("EDQUOT", "disk_full", True, "The disk or the quota at /home/ada/client is full"),
        ("ENOSPC", "disk_full", True, "Make room there"),
        ("EACCES", "path_refused", False, "Correct the cluster's client path"),
        ("open_to_all", "path_refused", False, "chmod o-w"),
        ("damaged", "upload_failed", True, "it came damaged"),
    ],
)
def test_a_failure_is_told_by_its_cause(
    code: str, reason: str, is_transient: bool, words: str
) -> None:
    carrier = Answering(status="failed", code=code, detail="it came damaged")
    with pytest.raises(errors.CannotConnect, match=words) as caught:
        upload.use(carrier, PLACE, "client-1.pyz")
    assert (caught.value.reason, caught.value.transient) == (reason, is_transient)
    assert (caught.value.pause_s > 0) == (reason == "disk_full")


def test_the_status_is_found_behind_what_a_profile_prints() -> None:
    said = bridge.status(Answering(status="none"), PLACE, "portal.1")
    assert said == {"status": "none"}
    noisy = Noisy(status="stale")
    assert bridge.status(noisy, PLACE, "portal.1")["status"] == "stale"


def test_a_client_without_the_archive_that_is_current_is_not_usable() -> None:
    for archives, is_usable in ((["client-1.pyz"], True), ([], False)):
        said = {"kind": "archive", "current": "client-1.pyz", "archives": archives}
        found = upload.look(Answering(**said), PLACE, upload.Archive(b""))
        assert found.is_usable == is_usable
