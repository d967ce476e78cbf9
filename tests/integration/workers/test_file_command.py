"""`hpc file` over a real stack: what is in a job's directory, read and followed."""

from __future__ import annotations

import base64
import json
import os
import signal
from pathlib import Path

import pytest

from controller.lifecycle import JobStatus
from controller.management.verbs import listing, tailing
from controller.models import HpcCluster, HpcJob
from tests.stack import Stack

from .file_command import directory_of, hpc_file, started

NAMES = (
    b"-dash",
    b"a b",
    b"hostile\x1b]0;title\x07\x1b[2J\n",
    b"plain.txt",
    "\u202egnirts".encode(),
    b"\xff\xfe",
)
LINES = "".join(f"line {number}\n" for number in range(1, 101))


@pytest.fixture(scope="module")
def job(shared_stack: Stack, cluster: HpcCluster) -> HpcJob:
    """A job that has ended, its directory full of difficult names."""
    made = shared_stack.wait_status(shared_stack.submit(cluster))
    directory = directory_of(shared_stack, made)
    hard = directory / "hard"
    hard.mkdir()
    for name in NAMES:
        (hard / os.fsdecode(name)).write_bytes(b"content of " + name)
    (directory / "lines").write_text(LINES)
    (directory / "link").symlink_to("lines\x1b[2J")
    (directory / "out").symlink_to("/etc/passwd")
    os.mkfifo(directory / "pipe")
    return made


def test_a_directory_is_listed(job: HpcJob) -> None:
    listed = hpc_file("ls", job.pk)
    assert (listed.status, listed.err) == (0, "")
    assert {"hard/", "lines", "link", "stdout.log"} <= set(listed.out.splitlines())
    lines = hpc_file("ls", "-l", job.pk).out.splitlines()
    (link,) = [line for line in lines if line.startswith("l") and "link" in line]
    assert link.endswith("link -> $'lines\\033[2J'")
    (file,) = [line for line in lines if line.endswith("  lines")]
    assert file.split()[:3] == ["-", "792", "bytes"]
    (directory,) = [line for line in lines if line.endswith("hard/")]
    assert directory.startswith("d  ")
    assert hpc_file("ls", job.pk, "lines").out == "lines\n"


def test_difficult_names_are_shown_harmless_and_stay_addressable(job: HpcJob) -> None:
    listed = hpc_file("ls", job.pk, "hard")
    assert listed.out.splitlines() == [
        "-dash",
        "'a b'",
        "$'hostile\\033]0;title\\007\\033[2J\\n'",
        "plain.txt",
        "$'\\342\\200\\256gnirts'",
        "$'\\377\\376'",
    ]
    for name in NAMES:
        path = "hard/" + os.fsdecode(name)
        assert hpc_file("cat", job.pk, path).data == b"content of " + name


def test_json_is_one_document_with_exact_names(job: HpcJob) -> None:
    listed = json.loads(hpc_file("ls", job.pk, "hard", "--json").out)
    assert (listed["job"], listed["path"], listed["is_complete"]) == (job.pk, "hard", True)
    exact = tuple(base64.b64decode(entry["name_b64"]) for entry in listed["entries"])
    assert exact == NAMES
    (stated,) = json.loads(hpc_file("ls", job.pk, "lines", "--json").out)["entries"]
    assert (stated["name"], stated["type"], stated["size_bytes"]) == ("lines", "file", 792)
    told = json.loads(hpc_file("stat", job.pk, "hard/\udcff\udcfe", "--json").out)
    assert base64.b64decode(told["path_b64"]) == b"hard/\xff\xfe"
    assert "792 bytes" in hpc_file("stat", job.pk, "lines").out


def test_a_listing_goes_on_after_a_name(job: HpcJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE", 2)
    whole = hpc_file("ls", job.pk, "hard").out
    assert len(whole.splitlines()) == len(NAMES)
    first = hpc_file("ls", job.pk, "hard", "--limit", 3)
    assert "--after $'hostile\\033]0;title\\007\\033[2J\\n'" in first.err
    rest = hpc_file("ls", job.pk, "hard", "--after", os.fsdecode(NAMES[2]))
    assert first.out + rest.out == whole
    cut = json.loads(hpc_file("ls", job.pk, "hard", "--limit", 6, "--json").out)
    assert (len(cut["entries"]), cut["is_complete"]) == (6, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ls", "{}", "nowhere"), "nowhere"),
        (("ls", "{}", "hard/../.."), ".."),
        (("ls", "{}", "/etc"), "relative"),
        (("stat", "{}", "nowhere"), "nowhere"),
        (("stat", "{}", "out"), "out"),
        (("tail", "{}", "hard"), "hard"),
        (("tail", "{}", "pipe"), "pipe"),
        (("tail", "{}", "nowhere"), "nowhere"),
        (("tail", "-f", "{}", "hard"), "hard"),
        (("ls", "99999"), "99999"),
    ],
)
def test_a_failure_is_one_sentence(job: HpcJob, words: tuple[str, ...], said: str) -> None:
    assert said in hpc_file(*(word.format(job.pk) for word in words)).sentence


def test_the_last_lines_are_shown(job: HpcJob) -> None:
    assert hpc_file("tail", job.pk, "lines").out == "".join(LINES.splitlines(True)[-10:])
    assert hpc_file("tail", job.pk, "lines", "-n", 1).out == "line 100\n"
    assert hpc_file("tail", job.pk, "lines", "-n", 0).out == ""
    assert hpc_file("tail", job.pk, "lines", "-n", 1000).out == LINES
    assert hpc_file("tail", job.pk).out == "hello\n"


def test_a_running_job_is_followed_to_its_end(
    shared_stack: Stack, cluster: HpcCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tailing, "IDLE_POLL_S", 0.1)
    go = tmp_path / "go"
    until = f"until [ -e {go}.%d ]; do sleep 0.05; done\n"
    job = shared_stack.submit(
        cluster,
        "#!/bin/sh\n"
        + until % 1
        + "echo first >late\n"
        + until % 2
        + "echo second >>late\n"
        + until % 3
        + "echo anew >late\n"
        + until % 4
        + "echo last >>late\n",
    )
    with started(shared_stack, "tail", "-f", job.pk, "late") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"not there yet" in process.stderr.readline()
        for number, line in ((1, b"first\n"), (2, b"second\n"), (3, b"anew\n"), (4, b"last\n")):
            Path(f"{go}.{number}").touch()
            assert process.stdout.readline() == line
        assert process.stdout.read() == b""
        assert process.wait(60) == 0
        said = process.stderr.read().decode()
    assert "begun anew" in said
    assert f"Job {job.pk} has ended: Completed" in said


def test_a_file_that_never_came_is_told_at_the_jobs_end(job: HpcJob) -> None:
    result = hpc_file("tail", "-f", job.pk, "never")
    assert (result.status, result.data) == (1, b"")
    assert "never of job" in result.err
    assert "the job has ended (Completed)" in result.err


def test_ctrl_c_ends_the_following_and_not_the_job(
    shared_stack: Stack, cluster: HpcCluster, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    job = shared_stack.submit(cluster, "#!/bin/sh\necho begun\n" + _until(go))
    with started(shared_stack, "tail", "-f", job.pk) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Stopped" in err
    assert b"Traceback" not in err
    go.touch()
    assert shared_stack.wait_status(job).status is JobStatus.COMPLETED


def _until(path: Path) -> str:
    return f"until [ -e {path} ]; do sleep 0.05; done\n"
