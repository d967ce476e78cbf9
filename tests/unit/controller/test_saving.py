"""A file that is saved here is whole under its name, or not there."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from controller.management.verbs import saving
from controller.management.verbs.terminal import WrongUsage

CONTENT = b"content"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def save(target: Path, is_forced: bool = False, sha256: str = SHA256) -> None:
    with saving.new_file(target, is_forced, len(CONTENT)) as file:
        file.write(CONTENT)
        file.keep(sha256)


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("has_links", [True, False])
def test_of_two_that_save_the_same_the_first_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")  # as on FAT

    if not has_links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    target = tmp_path / "file"
    with saving.new_file(target, False, 0) as late:
        save(target)
        late.write(b"late")
        with pytest.raises(saving.NotSaved, match="there already"):
            late.keep(hashlib.sha256(b"late").hexdigest())
    assert target.read_bytes() == CONTENT
    assert names_in(tmp_path) == ["file"]
    save(target, is_forced=True)


def test_bytes_that_are_not_those_of_the_cluster_get_no_name(tmp_path: Path) -> None:
    with pytest.raises(saving.NotSaved, match="sha256 differs"):
        save(tmp_path / "file", sha256="0" * 64)
    assert names_in(tmp_path) == []


def test_a_name_as_long_as_names_may_be_is_saved(tmp_path: Path) -> None:
    name = os.fsdecode("ä".encode() * 127 + b"\xff")
    save(tmp_path / name)
    assert names_in(tmp_path) == [name]
    with pytest.raises(saving.NotSaved, match="too long"):
        save(tmp_path / (name + "x"))


def test_the_name_here_is_the_one_that_was_typed(tmp_path: Path) -> None:
    assert saving.destination(str(tmp_path), "a/b", False) == tmp_path / "b"
    assert saving.destination(str(tmp_path / "c"), "a/b", False) == tmp_path / "c"
    for path in ("", ".", "a/..", "a/"):
        with pytest.raises(WrongUsage):
            saving.destination(str(tmp_path), path, False)
    with pytest.raises(saving.NotSaved, match="is a directory"):
        (tmp_path / "b").mkdir()
        saving.destination(str(tmp_path), "a/b", True)
