"""`hpc file get`, `put` and `cat` over a real stack: whole, or not at all, and said so."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import pty
import random
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management.base import OutputWrapper

from controller import errors
from controller.management.verbs import sending
from controller.management.verbs.terminal import Bar
from controller.models import FileTransfer, HpcCluster, HpcJob
from controller.models.transfer import ACTIVE
from controller.services import files
from tests.stack import CHECKOUT, Stack

from .file_command import argv, directory_of, hpc_file, started

CONTENT = random.Random(7).randbytes(3_000_001)
HOSTILE = b"\xff\n\x1b]0;title\x07"
BIG_BYTES = 4 << 30
"""Sparse, and so large that it does not come whole before we interrupt."""
SMALL_DISK = 'mount -t tmpfs -o size=1m none "{}" && exec "$@"'


@pytest.fixture(scope="module")
def job(shared_stack: Stack, cluster: HpcCluster) -> HpcJob:
    """A job that has ended and left files."""
    made = shared_stack.wait_status(shared_stack.submit(cluster))
    directory = directory_of(shared_stack, made)
    (directory / "sub").mkdir()
    (directory / "data").write_bytes(CONTENT)
    (directory / "empty").touch()
    (directory / "red").write_bytes(b"\x1b[31mred\n")
    (directory / os.fsdecode(HOSTILE)).write_bytes(b"hostile")
    (directory / "link").symlink_to("data")
    (directory / "out").symlink_to("/etc/passwd")
    with (directory / "big").open("wb") as file:
        file.truncate(BIG_BYTES)
    return made


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def nothing_is_left(directory: Path) -> bool:
    return not list(directory.iterdir())


def test_a_file_is_fetched_whole_with_its_sum(job: HpcJob, here: Path) -> None:
    mask = os.umask(0o027)
    try:
        result = hpc_file("get", job.pk, "data")
    finally:
        os.umask(mask)
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("data: 3.00 MB in ")
    assert digest in result.out
    assert (here / "data").read_bytes() == CONTENT
    assert (here / "data").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in here.iterdir()] == ["data"]
    (here / "sub").mkdir()
    told = json.loads(hpc_file("get", job.pk, "link", "sub", "--json").out)
    assert (told["saved_as"], told["sha256"]) == ("sub/link", digest)
    assert FileTransfer.objects.get(pk=told["transfer"]).sha256 == digest
    assert hpc_file("get", "-q", job.pk, "empty", here / "other").data == b""
    assert (here / "other").read_bytes() == b""


def test_a_hostile_name_is_a_name_here(job: HpcJob, here: Path) -> None:
    result = hpc_file("get", job.pk, os.fsdecode(HOSTILE))
    assert result.status == 0
    assert "\x1b" not in result.out
    assert [os.fsencode(path.name) for path in here.iterdir()] == [HOSTILE]


def test_what_is_here_is_replaced_on_request_alone(job: HpcJob, here: Path) -> None:
    kept = here / "data"
    kept.write_text("mine")
    assert "--force" in hpc_file("get", job.pk, "data").sentence
    assert kept.read_text() == "mine"
    link = here / "link"
    link.symlink_to("data")
    assert hpc_file("get", "--force", job.pk, "data", "link").status == 0
    assert link.is_symlink()
    assert kept.read_bytes() == CONTENT
    assert "no regular file" in hpc_file("get", "--force", job.pk, "data", "/dev/null").sentence
    assert "make it first" in hpc_file("get", job.pk, "data", "new/").sentence
    assert "make it first" in hpc_file("get", job.pk, "data", "new/name").sentence
    assert sorted(path.name for path in here.iterdir()) == ["data", "link"]


@pytest.mark.parametrize("path", ["nowhere", "sub", "out", "../x", "/etc/passwd", "sub/nothing"])
@pytest.mark.parametrize("verb", ["get", "cat"])
def test_what_is_no_file_of_the_job_is_one_sentence(
    job: HpcJob, here: Path, verb: str, path: str
) -> None:
    assert hpc_file(verb, job.pk, path).sentence
    assert nothing_is_left(here)


@pytest.mark.parametrize(
    "words", [("get", "{}", "."), ("get", "{}", "sub/.."), ("get", "{}", "data", "-", "--json")]
)
def test_wrong_usage_ends_with_2(job: HpcJob, here: Path, words: tuple[str, ...]) -> None:
    result = hpc_file(*(word.format(job.pk) for word in words))
    assert (result.status, result.data) == (2, b"")
    assert len(result.err.splitlines()) == 1


def test_bytes_go_to_stdout_as_they_are(job: HpcJob) -> None:
    assert hpc_file("cat", job.pk, "data").data == CONTENT
    assert hpc_file("get", job.pk, "data", "-").data == CONTENT
    assert hpc_file("cat", job.pk, "red").data == b"\x1b[31mred\n"


def test_a_file_is_sent_and_can_be_fetched_again(
    shared_stack: Stack, job: HpcJob, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = directory_of(shared_stack, job)
    (here / "input").write_bytes(CONTENT)
    told = json.loads(hpc_file("put", job.pk, "input", "--json").out)
    assert (told["path"], told["size_bytes"]) == ("input", len(CONTENT))
    assert told["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert (there / "input").read_bytes() == CONTENT
    assert "--force" in hpc_file("put", job.pk, "input").sentence
    (here / "input").write_bytes(b"")
    assert "input of job" in hpc_file("put", "--force", job.pk, "input").out
    assert (there / "input").read_bytes() == b""
    assert hpc_file("put", job.pk, "input", "sub").out.startswith("sub/input of job")
    name = os.fsdecode(HOSTILE) + "2"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(CONTENT)))
    assert hpc_file("put", job.pk, "-", name).status == 0
    assert (there / name).read_bytes() == CONTENT
    assert hpc_file("put", job.pk, "-", "sub").status == 2


@pytest.mark.parametrize(
    ("file", "path", "said"),
    [
        ("nothing", "x", "nothing"),
        (".", "x", "directory"),
        ("/dev/zero", "x", "pipe"),
        ("pipe", "x", "pipe"),
        ("mine", "no/such/place", "No such file"),
        ("mine", "new/", "Job {} has no directory new/"),
        ("mine", "../x", ".."),
        ("mine", ".hpc/claim", ".hpc"),
    ],
)
def test_what_can_not_be_sent_is_one_sentence(
    job: HpcJob, here: Path, file: str, path: str, said: str
) -> None:
    os.mkfifo(here / "pipe")
    (here / "mine").write_text("mine")
    assert said.format(job.pk) in hpc_file("put", "--force", job.pk, file, path).sentence


@pytest.mark.parametrize("change", ["grows", "shrinks", "is written to"])
def test_a_file_that_changes_while_it_is_sent_is_not_stored(
    shared_stack: Stack, job: HpcJob, here: Path, change: str
) -> None:
    path = here / "busy"
    path.write_bytes(CONTENT)
    size_bytes = {"grows": 4_000_000, "shrinks": 2_000_000}.get(change, len(CONTENT))

    def meanwhile(pieces: Iterator[bytes]) -> Iterator[bytes]:
        yield next(pieces)
        os.truncate(path, size_bytes)
        os.utime(path, ns=(1, 1))
        yield from pieces

    quiet = Bar(OutputWrapper(io.StringIO()))
    with sending.source(str(path)) as source, pytest.raises(errors.HpcError) as caught:
        files.upload(job, "busy", source.size_bytes, meanwhile(source.pieces(quiet)))
    assert "changed while it was sent" in str(caught.value)
    shared_stack.wait(
        lambda: not [p for p in directory_of(shared_stack, job).iterdir() if "busy" in p.name],
        "the rest to be taken away",
    )


def test_ctrl_c_takes_away_what_came_and_a_bar_shows_it_coming(
    shared_stack: Stack, job: HpcJob, here: Path
) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    shown = b""
    with started(shared_stack, "get", job.pk, "big", here / "big", stderr=theirs) as process:
        os.close(theirs)
        while b" left" not in shown:
            shown += os.read(ours, 4096)
        (part,) = here.iterdir()
        assert part.name.endswith(".part")
        assert part.stat().st_mode & 0o777 == 0o600
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        while chunk := _read_or_end(ours):
            shown += chunk
    os.close(ours)
    assert nothing_is_left(here)
    text = shown.decode()
    assert "Traceback" not in text
    assert f"Stopped; nothing of {here}/big was kept." in text
    drawn = [line for line in text.split("\r") if " left" in line]
    assert "B/s" in drawn[-1]
    assert " of 4.29 GB" in drawn[-1]
    assert max(len(line.rstrip()) for line in drawn) < 100


def test_sigterm_leaves_nothing_either(shared_stack: Stack, job: HpcJob, here: Path) -> None:
    with started(shared_stack, "get", job.pk, "big", here / "big") as process:
        shared_stack.wait(lambda: not nothing_is_left(here), "the first bytes")
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert nothing_is_left(here)


def test_a_reader_that_goes_away_ends_it_quietly(shared_stack: Stack, job: HpcJob) -> None:
    before = set(FileTransfer.objects.values_list("pk", flat=True))
    with started(shared_stack, "cat", job.pk, "big") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10) == bytes(10)
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr.read() == b""
    mine = FileTransfer.objects.exclude(pk__in=before)
    assert mine.count() == 1
    shared_stack.wait(lambda: not mine.filter(state__in=ACTIVE).exists(), "the transfer to end")


def test_a_full_disk_behind_stdout_is_a_sentence(shared_stack: Stack, job: HpcJob) -> None:
    with (
        Path("/dev/full").open("wb") as full,
        started(shared_stack, "cat", job.pk, "data", stdout=full) as process,
    ):
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == b"stdout can't be written: No space left on device; what it got is not whole.\n"


def on_a_small_disk(stack: Stack, directory: Path, *command: str) -> tuple[int, str, list[str]]:
    """Run a command where `directory` is a disk of 1 MiB: status, stderr, and what it left."""
    rights = [] if os.getuid() == 0 else ["--map-root-user"]
    script = SMALL_DISK.format(directory).replace("exec ", "") + f'; status=$?; ls -A "{directory}"'
    ended = subprocess.run(
        ["unshare", "--mount", *rights, "sh", "-c", script + "; exit $status", "sh", *command],
        cwd=CHECKOUT,
        env=stack.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ended.returncode, ended.stderr, ended.stdout.splitlines()


def test_a_disk_that_is_too_small_is_told_before_anything_comes(
    shared_stack: Stack, job: HpcJob, here: Path
) -> None:
    words = argv("get", job.pk, "data", here / "data")
    status, said, left = on_a_small_disk(shared_stack, here, *words)
    assert (status, left) == (1, [])
    assert "data needs 3.00 MB, and its disk has 1.05 MB left: nothing was fetched." in said


def test_a_disk_that_fills_up_meanwhile_is_a_sentence(shared_stack: Stack, here: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from controller.management.verbs import saving\n"
        f"try:\n  with saving.new_file(Path({str(here / 'data')!r}), False, 0) as file:\n"
        "    while True: file.write(bytes(100_000))\n"
        "except saving.NotSaved as problem: sys.exit(str(problem))\n"
    )
    status, said, left = on_a_small_disk(shared_stack, here, sys.executable, "-c", program)
    assert (status, left) == (1, [])
    assert "data can't be written: the disk is full after 1.00 MB" in said


def _read_or_end(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # EIO: nobody has its other end any more
        return b""
