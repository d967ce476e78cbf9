"""Paths stay inside a job's directory, whatever is asked for and whatever is swapped in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster_client import confinement, errors

TAG = "jaaaaaaaaaaaaaa"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    job = tmp_path / "jobs" / TAG
    (job / "a" / "b").mkdir(parents=True)
    (job / "out.txt").write_text("hello")
    (job / "a" / "in.txt").write_text("inner")
    (tmp_path / "jobs" / "secret.txt").write_text("secret")
    (tmp_path / "jobs" / f"{TAG}x").mkdir()
    return tmp_path / "jobs"


def read(root: Path, path: str, tag: str = TAG) -> bytes:
    with confinement.walk(str(root), tag, path) as found:
        descriptor = found.open_file()
        try:
            return os.read(descriptor, 100)
        finally:
            os.close(descriptor)


def refusal(root: Path, path: str, tag: str = TAG) -> str:
    with pytest.raises(errors.PathRefused) as caught:
        read(root, path, tag)
    return str(caught.value)


@pytest.mark.parametrize("path", ["out.txt", "./out.txt", ".//./out.txt"])
def test_a_file_is_found(root: Path, path: str) -> None:
    assert read(root, path) == b"hello"


def test_the_empty_path_is_the_directory_itself(root: Path) -> None:
    with confinement.walk(str(root), TAG, "") as found:
        assert found.is_directory


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("..", "'..'"),
        ("../secret.txt", "'..'"),
        ("a/../out.txt", "'..'"),
        ("a/../../secret.txt", "'..'"),
        ("/etc/passwd", "relative"),
        ("//etc/passwd", "relative"),
        ("out.txt\0", "NUL"),
        ("x" * 256, "over 255"),
        ("x/" * 3000, "over 4096"),
        ("nothing", "No such file"),
        ("out.txt/more", "Not a directory"),
        ("a", "not a regular file"),
    ],
)
def test_other_paths_are_refused_with_the_reason(root: Path, path: str, why: str) -> None:
    assert why in refusal(root, path)


@pytest.mark.parametrize("tag", ["", ".", "..", ".trash", "jaaa", f"{TAG}x", "J" * 15, "../../.."])
def test_what_is_no_tag_is_refused(root: Path, tag: str) -> None:
    assert "not the tag" in refusal(root, "out.txt", tag)


def test_a_job_without_a_directory_is_told(root: Path) -> None:
    assert "has no directory" in refusal(root, "out.txt", "j" + "b" * 14)


def test_a_job_directory_that_is_a_link_is_refused(root: Path) -> None:
    (root / ("j" + "c" * 14)).symlink_to(root)
    assert "has no directory" in refusal(root, "secret.txt", "j" + "c" * 14)


# Links -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "target"),
    [
        ("link", "out.txt"),
        ("link", "a/../out.txt"),
        ("a/link", "../out.txt"),
        ("a/b/link", ".././../out.txt"),
    ],
)
def test_a_link_inside_is_followed(root: Path, where: str, target: str) -> None:
    (root / TAG / where).symlink_to(target)
    assert read(root, where) == b"hello"


def test_a_link_to_a_directory_inside_is_walked_through(root: Path) -> None:
    (root / TAG / "down").symlink_to("a")
    assert read(root, "down/in.txt") == b"inner"


def test_an_absolute_link_that_stays_inside_is_followed(root: Path) -> None:
    (root / TAG / "a" / "link").symlink_to(root / TAG / "out.txt")
    assert read(root, "a/link") == b"hello"


def test_an_absolute_link_by_another_name_of_the_directory_is_followed(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "alias").symlink_to(root)
    (root / TAG / "real").symlink_to(root / TAG / "out.txt")
    (root / TAG / "named").symlink_to(tmp_path / "alias" / TAG / "out.txt")
    for name in ("real", "named"):
        assert read(tmp_path / "alias", name) == b"hello"


@pytest.mark.parametrize(
    ("where", "target"),
    [
        ("link", "/etc/passwd"),
        ("link", "../secret.txt"),
        ("link", "a/../../secret.txt"),
        ("link", ".."),
        ("a/link", "../../secret.txt"),
        ("link", "out.txt/.."),
    ],
)
def test_a_link_that_leads_out_is_refused(root: Path, where: str, target: str) -> None:
    (root / TAG / where).symlink_to(target)
    assert "link" in refusal(root, where)


def test_an_absolute_link_to_a_directory_whose_name_begins_alike_is_refused(root: Path) -> None:
    (root / f"{TAG}x" / "file").write_text("other")
    (root / TAG / "link").symlink_to(root / f"{TAG}x" / "file")
    assert "leads out" in refusal(root, "link")


def test_an_absolute_link_that_climbs_out_again_is_refused(root: Path) -> None:
    (root / TAG / "link").symlink_to(f"{root}/{TAG}/../secret.txt")
    assert "leads out" in refusal(root, "link")


def test_links_in_a_circle_end(root: Path) -> None:
    (root / TAG / "one").symlink_to("two")
    (root / TAG / "two").symlink_to("one")
    assert "too many links" in refusal(root, "one")


def test_a_directory_swapped_for_a_link_after_it_was_walked_leads_nowhere(root: Path) -> None:
    with confinement.walk(str(root), TAG, "a") as found:
        (root / TAG / "a").rename(root / TAG / "moved")
        (root / TAG / "a").symlink_to("/etc")
        directory = found.open_directory()
        try:
            assert {entry.name for entry in os.scandir(directory)} == {"b", "in.txt"}
        finally:
            os.close(directory)


# Special files -----------------------------------------------------------------------------------


def test_a_fifo_is_never_opened(root: Path) -> None:
    os.mkfifo(root / TAG / "fifo")
    assert "not a regular file" in refusal(root, "fifo")


def test_a_device_is_never_opened(root: Path) -> None:
    if os.geteuid() == 0:
        os.mknod(root / TAG / "device", 0o020600, os.makedev(1, 3))
        assert "not a regular file" in refusal(root, "device")
    else:
        with (
            confinement.walk(str(root), TAG, "") as found,
            pytest.raises(errors.PathRefused, match="not a regular file"),
        ):
            found.open_file()


def test_no_handle_is_left_open(root: Path) -> None:
    (root / TAG / "link").symlink_to("a/b/../../../secret.txt")
    before = list(Path("/proc/self/fd").iterdir())
    refusal(root, "link")
    read(root, "a/in.txt")
    assert list(Path("/proc/self/fd").iterdir()) == before
