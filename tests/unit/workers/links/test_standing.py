"""Which client fits, and which one there is to go back to."""

from __future__ import annotations

import pytest

from workers.links import client_archive, upload
from workers.links.standing import Client, Skew, Standing, skew

ARCHIVE = client_archive.Archive(b"new")
NAMES = ("client-a.pyz", "client-b.pyz", ARCHIVE.name)


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        ((), Skew.FITS),
        ((3,), Skew.FITS),
        ((4, 3), Skew.FITS),
        ((2, 1), Skew.FITS),
        ((1,), Skew.OLDER),
        ((5, 4), Skew.NEWER),
        ((4, 1), Skew.NEWER),
    ],
)
def test_versions_decide_who_is_newer(theirs: tuple[int, ...], expected: Skew) -> None:
    assert skew(theirs, (3, 2)) is expected


def standing(current: str, previous: str, running: str, archives: tuple[str, ...]) -> Standing:
    found = upload.Found(upload.ARCHIVE, current, True, "3.9.0", "/python", previous, archives)
    return Standing(found, Client(), Client(running, (1,) if running else ()))


@pytest.mark.parametrize(
    ("current", "previous", "running", "archives", "expected"),
    [
        ("client-a.pyz", "client-b.pyz", "", NAMES, "client-a.pyz"),
        ("client-a.pyz", "client-b.pyz", "b", NAMES, "client-b.pyz"),
        ("client-a.pyz", "client-b.pyz", "b", NAMES[:1], "client-a.pyz"),
        (ARCHIVE.name, "client-b.pyz", "", NAMES, "client-b.pyz"),
        (ARCHIVE.name, "", ARCHIVE.build_hash, NAMES, ""),
        ("", "", "", (), ""),
    ],
)
def test_what_ran_last_is_what_comes_back(
    current: str, previous: str, running: str, archives: tuple[str, ...], expected: str
) -> None:
    assert standing(current, previous, running, archives).before(ARCHIVE) == expected
