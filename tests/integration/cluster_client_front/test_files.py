"""`client.py files`: a data link of its own process, without a daemon."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import websocket

from cluster_client.protocol import messages
from tests.integration.cluster_client_front.harness import Installation, Link

TAG = "jaaaaaaaaaaaaaa"


@pytest.fixture
def job(installation: Installation) -> Path:
    directory = installation.jobs / TAG
    (directory / "sub").mkdir(parents=True)
    (directory / "stdout.log").write_text("hello\n")
    (installation.jobs / "secret").write_text("secret")
    return directory


@pytest.fixture
def link(installation: Installation, job: Path) -> Iterator[Link]:
    one = installation.files()
    yield one
    one.close()


def refusal(link: Link, message: object) -> str:
    answer = link.request(message)
    assert isinstance(answer, messages.Error), answer
    assert answer.code in ("path_refused", "invalid_request", "no_such_path")
    return answer.message


def test_list_stat_and_read(link: Link) -> None:
    listed = link.request(messages.List(TAG))
    assert [(one.name, one.type) for one in listed.entries] == [
        ("stdout.log", "file"),
        ("sub", "directory"),
    ]
    stated = link.request(messages.Stat(TAG, "stdout.log"))
    assert (stated.entry.name, stated.entry.size_bytes) == ("stdout.log", 6)
    assert link.request(messages.Stat(TAG)).entry.type == "directory"
    assert link.read(TAG, "stdout.log") == b"hello\n"
    assert link.request(messages.List(TAG, "sub")) == messages.Listed((), True)


def test_a_part_of_a_file(link: Link) -> None:
    for offset, length, expected in (
        (0, -1, b"hello\n"),
        (2, -1, b"llo\n"),
        (2, 2, b"ll"),
        (6, -1, b""),
        (99, 5, b""),
        (0, 0, b""),
    ):
        assert link.read(TAG, "stdout.log", offset, length) == expected


def test_a_big_file_comes_whole_and_in_bounded_frames(link: Link, job: Path) -> None:
    data = os.urandom(5 << 20) * 4 + b"end"
    (job / "big").write_bytes(data)
    opened = link.request(messages.Open("t", 1, TAG, "big"))
    assert opened.size_bytes == len(data)
    sizes = []
    while len(link.data) < len(data):
        before = len(link.data)
        link.receive()
        sizes.append(len(link.data) - before)
    assert max(sizes) <= 1 << 20
    end = link.wait_for(lambda message: isinstance(message, messages.End))
    assert end == messages.End(len(data), hashlib.sha256(data).hexdigest())
    assert bytes(link.data) == data


def test_a_ping_is_answered_in_the_middle_of_a_file(link: Link, job: Path) -> None:
    with (job / "big").open("wb") as file:
        file.truncate(64 << 20)
    assert isinstance(link.request(messages.Open("t", 1, TAG, "big")), messages.Opened)
    link.socket.ping("now")
    received, is_answered = 0, False
    while not is_answered:
        opcode, data = link.socket.recv_data(control_frame=True)
        is_answered = opcode == websocket.ABNF.OPCODE_PONG
        received += 0 if is_answered else len(data)
    assert received < 64 << 20


def test_an_etag_changes_with_the_file(link: Link, job: Path) -> None:
    def etag() -> str:
        answer: messages.Opened = link.request(messages.Open("t", 1, TAG, "stdout.log"))
        link.wait_for(lambda message: isinstance(message, messages.End))
        link.notices.clear()
        return answer.etag

    first = etag()
    assert etag() == first
    (job / "stdout.log").write_text("more than that\n")
    assert etag() != first


ELSEWHERE = (
    "../secret",
    "..",
    "sub/../../secret",
    "/etc/passwd",
    "a\0b",
    "x" * 300,
    "x/" * 3000,
    "absent",
)
NO_JOBS = ("..", ".", "", "/", "j", "secret", ".trash", "jaaaaaaaaaaaaab")


def test_a_path_that_leads_elsewhere_is_refused(link: Link) -> None:
    for path in ELSEWHERE:
        for message in (
            messages.Open("t", 1, TAG, path),
            messages.Stat(TAG, path),
            messages.List(TAG, path),
        ):
            assert refusal(link, message)
    assert link.read(TAG, "stdout.log") == b"hello\n"


def test_what_is_no_job_is_refused(link: Link) -> None:
    for tag in NO_JOBS:
        assert refusal(link, messages.List(tag))
        assert refusal(link, messages.Open("t", 1, tag, "secret"))


def test_links_inside_are_followed_and_others_refused(link: Link, job: Path) -> None:
    (job / "inner").symlink_to("stdout.log")
    (job / "outer").symlink_to("../secret")
    (job / "absolute").symlink_to("/etc/passwd")
    (job / "up").symlink_to("..")
    assert link.read(TAG, "inner") == b"hello\n"
    for name in ("outer", "absolute", "up/secret"):
        assert "out of the job's directory" in refusal(link, messages.Open("t", 1, TAG, name))
        assert refusal(link, messages.Stat(TAG, name))
    assert "out of" in refusal(link, messages.List(TAG, "up"))


def test_special_files_are_listed_and_never_opened(link: Link, job: Path) -> None:
    os.mkfifo(job / "fifo")
    assert refusal(link, messages.Open("t", 1, TAG, "fifo"))
    assert link.request(messages.Stat(TAG, "fifo")).entry.type == "other"
    # A reader would have come by now: a writer that does not block finds none.
    with pytest.raises(OSError, match="No such device"):
        os.close(os.open(job / "fifo", os.O_WRONLY | os.O_NONBLOCK))


def test_a_directory_is_not_read(link: Link) -> None:
    assert "not a regular file" in refusal(link, messages.Open("t", 1, TAG, "sub"))


def test_a_negative_range_is_refused(link: Link) -> None:
    for offset, length in ((-1, -1), (0, -2)):
        assert "negative" in refusal(link, messages.Open("t", 1, TAG, "stdout.log", offset, length))


def test_a_swap_between_two_requests_leads_nowhere(link: Link, job: Path) -> None:
    stop = threading.Event()
    (job / "real").mkdir()
    (job / "real" / "file").write_text("inside")
    (job.parent / "file").write_text("outside")
    (job / "away").symlink_to("..")

    def swap() -> None:
        while not stop.is_set():
            for name in ("real", "away"):
                (job / "here").unlink(missing_ok=True)
                (job / "here").symlink_to(name)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(200):
            answer = link.request(messages.Open("t", 1, TAG, "here/file"))
            if isinstance(answer, messages.Opened):
                link.data.clear()
                link.wait_for(lambda message: isinstance(message, messages.End))
                link.notices.clear()
                assert bytes(link.data) in (b"inside", b"")
    finally:
        stop.set()
        swapping.join()


def test_jobs_are_not_for_this_link(link: Link) -> None:
    answer = link.request(messages.Compare(()))
    assert isinstance(answer, messages.Error)
    assert answer.code == "wrong_purpose"


def test_a_malformed_frame_ends_the_link(link: Link) -> None:
    link.socket.send("no json")
    assert link.wait_for_end().code == 1002
    assert link.bridge.process.wait(30) == 0


def test_the_process_ends_with_its_link(installation: Installation, job: Path) -> None:
    first = installation.files()
    first.close()
    assert first.bridge.process.returncode == 0
    second = installation.files()
    second.bridge.socket.shutdown(1)
    assert second.bridge.process.wait(30) == 0


def test_a_wrong_greeting_is_refused(installation: Installation, job: Path) -> None:
    bridge = installation.bridge("files", installation.key)
    one = Link(bridge, installation, "/files", messages.DATA_LIMIT_BYTES)
    assert one.greet(purpose="files", instance_id="other").code == "wrong_instance"
    assert one.greet(purpose="files", versions=(99,)).code == "version_mismatch"
    assert one.greet(purpose="control").code == "wrong_purpose"
    assert isinstance(one.greet(purpose="files"), messages.Welcome)
    one.close()


def test_the_job_directory_that_the_server_chose_is_used(
    installation: Installation, tmp_path: Path
) -> None:
    installation.settings["HPC_JOB_WORKING_DIRECTORY"] = str(tmp_path / "elsewhere")
    installation.start()
    installation.stop()
    (tmp_path / "elsewhere" / TAG).mkdir()
    (tmp_path / "elsewhere" / TAG / "file").write_text("there")
    link = installation.files()
    assert link.read(TAG, "file") == b"there"
    link.close()


def test_the_superuser_is_refused_unless_allowed(installation: Installation) -> None:
    del installation.environment["HPC_ALLOW_ROOT"]
    with installation.bridge("files", installation.key) as bridge:
        expected = "failed" if os.geteuid() == 0 else "connected"
        assert bridge.marker["status"] == expected
