"""Nothing is read or written outside of a job's directory, whatever is asked and swapped in."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster_client import confinement, errors, listing, writing
from cluster_client.protocol import messages
from tests.unit.cluster_client import swapper

TAG = "jaaaaaaaaaaaaaa"
TRIES = 2000
LIMIT_S = 60.0


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job's directory with its like outside: what is inside says so, and what is outside."""
    job = tmp_path / "jobs" / TAG
    outside = tmp_path / "outside"
    for directory, word in ((job, "inside"), (outside, "outside")):
        (directory / "d" / "e").mkdir(parents=True)
        for place in (directory, directory / "d", directory / "d" / "e"):
            (place / "file").write_text(word)
            (place / word).touch()
    return job


@pytest.fixture
def swapping(job: Path) -> Iterator[None]:
    """Directories at each depth, a file, and the job's directory itself, swapped all the time."""
    outside = job.parent.parent / "outside"
    traps = (
        (job, job.parent / "trap", outside),
        (job / "d", job / "trap", "../../outside/d"),
        (job / "d" / "e", job / "d" / "trap", outside / "d" / "e"),
        (job / "file", job / "trap-file", "../../outside/file"),
    )
    for _, trap, target in traps:
        trap.symlink_to(target)
    pairs = [str(path) for place, trap, _ in reversed(traps) for path in (place, trap)]
    with subprocess.Popen(
        [sys.executable, swapper.__file__, *pairs],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
        assert process.poll() is None, "it could not swap any more"
        process.kill()


def race(attempt: Callable[[], None]) -> None:
    """Try thousands of times, and until it was both let in and refused."""
    outcomes = {"in": 0, "refused": 0}
    ends_at = time.monotonic() + LIMIT_S
    while sum(outcomes.values()) < TRIES or not all(outcomes.values()):
        assert time.monotonic() < ends_at, outcomes
        try:
            attempt()
        except errors.PathRefused:
            outcomes["refused"] += 1
        else:
            outcomes["in"] += 1


@pytest.mark.parametrize("path", ["file", "d/file", "d/e/file"])
def test_no_byte_from_outside_is_read_in_a_race(job: Path, swapping: None, path: str) -> None:
    def attempt() -> None:
        with confinement.walk(str(job.parent), TAG, path) as found:
            descriptor = found.open_file()
        try:
            assert os.read(descriptor, 100) == b"inside"
        finally:
            os.close(descriptor)

    race(attempt)


@pytest.mark.parametrize("path", ["", "d", "d/e"])
def test_no_name_from_outside_is_listed_in_a_race(job: Path, swapping: None, path: str) -> None:
    lister = listing.Lister(str(job.parent))

    def attempt() -> None:
        listed = lister.page(messages.List(TAG, path))
        assert "outside" not in [entry.name for entry in listed.entries]

    race(attempt)


@pytest.mark.parametrize("path", ["d/new", "d/e/new"])
def test_no_file_is_written_outside_in_a_race(job: Path, swapping: None, path: str) -> None:
    outside = job.parent.parent / "outside"
    before = everything(outside)
    data = b"uploaded"

    def attempt() -> None:
        upload = writing.Upload(str(job.parent), messages.Put("t", TAG, path, len(data)))
        upload.write(data)
        upload.finish(messages.Finish(len(data), hashlib.sha256(data).hexdigest()))

    race(attempt)
    assert everything(outside) == before


def everything(top: Path) -> dict[Path, bytes]:
    """All paths below, and what the files hold."""
    return {path: path.read_bytes() for path in top.rglob("*") if path.is_file()}


# Fuzzing -----------------------------------------------------------------------------------------

NAMES = st.sampled_from([
    "", ".", "..", "d", "e", "file", "new", "up", "out", "absolute", "inner", "circle", "fifo",
    ".hpc", "records", "x" * 255, "x" * 256, "\udcff", "\ud800", "\0", " ", "\\", "-", "*",
]) | st.text(max_size=5)  # fmt: skip
PATHS = st.lists(NAMES, max_size=6).map("/".join) | st.text(max_size=30)


@pytest.fixture
def traps(job: Path) -> Path:
    for name, target in (
        ("up", ".."), ("out", "../../outside"), ("absolute", str(job.parent.parent / "outside")),
        ("inner", "d/e"), ("circle", "circle/file"), ("records", ".hpc"),
    ):  # fmt: skip
        (job / name).symlink_to(target)
        (job / "d" / name).symlink_to(f"../{target}" if target[0] != "/" else target)
    (job / ".hpc").mkdir()
    (job / ".hpc" / "script").write_text("record")
    os.mkfifo(job / "fifo")
    return job


@given(PATHS)
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_path_leads_inside_or_is_refused(traps: Path, path: str) -> None:
    try:
        with confinement.walk(str(traps.parent), TAG, path) as found:
            real = Path(f"/proc/self/fd/{found.handle}").readlink()
    except errors.PathRefused:
        return
    assert real == traps or traps in real.parents


@given(PATHS, st.binary(max_size=3))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_path_is_written_inside_or_refused(traps: Path, path: str, data: bytes) -> None:
    outside = traps.parent.parent / "outside"
    before = everything(outside)
    try:
        upload = writing.Upload(str(traps.parent), messages.Put("t", TAG, path, len(data)))
        upload.write(data)
        upload.finish(messages.Finish(len(data), hashlib.sha256(data).hexdigest()))
    except (errors.PathRefused, errors.NotStored):
        pass
    else:
        with confinement.walk(str(traps.parent), TAG, path) as found:
            descriptor = found.open_file()
        assert os.read(descriptor, 100) == data
        os.close(descriptor)
    assert everything(outside) == before
    assert everything(traps / ".hpc") == {traps / ".hpc" / "script": b"record"}
    assert (traps / "up").is_symlink()
    assert not list(traps.rglob(".hpc-put-*"))
