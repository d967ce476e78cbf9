"""The pages of a job's files: lists and downloads, who may see them, and what goes wrong.

The cluster's part is the client's own code on a directory here; a worker and a network are left
out, which tests/acceptance/test_downloads.py puts in.
"""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client
from pytest_django import Settings

from cluster_client import confinement, listing
from cluster_client import errors as client_errors
from cluster_client.protocol import messages
from controller import errors, publish
from controller.admin import job_files
from controller.lifecycle import JobStatus
from controller.models import FileTransfer, HpcCluster, HpcJob
from controller.models.transfer import TransferState

from .conftest import MakeJob
from .file_worker import Part, Workers, sends
from .pages import url, user_with

pytestmark = pytest.mark.django_db(transaction=True)
CONTENT = b"\x00\x01results" * 500


@pytest.fixture
def job(make_job: MakeJob, cluster: HpcCluster) -> HpcJob:
    return make_job(JobStatus.COMPLETED, cluster=cluster, attempt=1)


@pytest.fixture
def place(job: HpcJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The job's directory on a cluster whose files worker answers."""
    directory = tmp_path / "jobs" / job.tag
    directory.mkdir(parents=True)

    def answer(verb: str, job_id: int, path: str, *arguments: Any, **_: Any) -> dict[str, Any]:
        assert job_id == job.pk
        try:
            if verb == "stat":
                with confinement.walk(str(directory.parent), job.tag, path) as found:
                    return dataclasses.asdict(listing.entry(b"x", found.status))
            question = messages.List(job.tag, path, *arguments)
            return dataclasses.asdict(listing.Lister(str(directory.parent)).page(question))
        except client_errors.PathRefused as refusal:
            raise errors.Refused(str(refusal)) from refusal

    monkeypatch.setattr(publish, "call_files", answer)
    return directory


@pytest.fixture
def play(
    settings: Settings, short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Part], Workers]:
    """Has a files worker carry what is downloaded."""
    settings.HPC_IPC_UNIX_SOCKET = str(short_directory / "relay")

    def begin(part: Part) -> Workers:
        workers = Workers(part)
        monkeypatch.setattr(publish, "start_transfer", workers)
        return workers

    return begin


def files_url(job: HpcJob, path: bytes = b"", page: str = "files") -> str:
    found = url("hpcjob", page, job.pk)
    query = urlencode({"path": base64.urlsafe_b64encode(path).decode()})
    return f"{found}?{query}" if path else found


def shown(client: Client, address: str) -> Any:
    response = client.get(address)
    assert response.status_code == 200
    return response


def rows(response: Any) -> dict[str, job_files.Row]:
    return {row.name: row for row in response.context["rows"]}


def path_in(address: str) -> bytes:
    return base64.urlsafe_b64decode(parse_qs(urlsplit(address).query)["path"][0])


def test_a_directory_is_listed_with_ways_to_all_in_it(
    admin_client: Client, job: HpcJob, place: Path
) -> None:
    (place / "out").mkdir()
    (place / "stdout.log").write_bytes(CONTENT)
    (place / "newest").symlink_to("out")
    os.mkfifo(place / "pipe")
    response = shown(admin_client, files_url(job))
    found = rows(response)
    assert {name: row.kind for name, row in found.items()} == {
        "newest": "link", "out": "directory", "pipe": "other", "stdout.log": "file",
    }  # fmt: skip
    assert found["out"].url == files_url(job, b"out")
    assert found["stdout.log"].url == files_url(job, b"stdout.log", "download")
    assert (found["newest"].target, found["newest"].url) == ("out", files_url(job, b"newest"))
    assert found["pipe"].url == ""
    page = response.content.decode()
    assert "4.4\xa0KB" in page
    assert "<script>" not in page
    assert "(no file: it can’t be read)" in page


def test_names_that_are_no_utf8_lead_to_what_they_name(
    admin_client: Client, job: HpcJob, place: Path
) -> None:
    inside = place / os.fsdecode(b"caf\xe9")
    inside.mkdir()
    (inside / os.fsdecode(b"\xff?&#\x1b<b>.txt")).write_text("x")
    (directory,) = rows(shown(admin_client, files_url(job))).values()
    assert path_in(directory.url) == b"caf\xe9"
    response = shown(admin_client, directory.url)
    (row,) = rows(response).values()
    assert path_in(row.url) == b"caf\xe9/\xff?&#\x1b<b>.txt"
    page = response.content.decode()
    assert "<b>" not in page
    assert "\x1b" not in page
    assert "\\x1b&lt;b&gt;.txt" in page


def test_large_directory_comes_in_pages(
    admin_client: Client, job: HpcJob, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_files, "ENTRIES_SHOWN", 2)
    (place / "d").mkdir()
    for name in ("a+b", "b", "c", "d", "e"):
        (place / "d" / name).touch()
    address, seen = files_url(job, b"d"), []
    while address:
        response = shown(admin_client, address)
        seen.append(list(rows(response)))
        address = response.context.get("more_url")
    assert seen == [["a+b", "b"], ["c", "d"], ["e"]]
    assert "From the beginning" in response.content.decode()


def test_link_is_followed_to_a_directory_or_a_file(
    admin_client: Client, job: HpcJob, place: Path
) -> None:
    (place / "out").mkdir()
    (place / "out" / "x").touch()
    (place / "last").symlink_to("out")
    (place / "log").symlink_to("out/x")
    (place / "away").symlink_to("/etc/passwd")
    assert list(rows(shown(admin_client, files_url(job, b"last")))) == ["x"]
    response = admin_client.get(files_url(job, b"log"))
    assert (response.status_code, response.url) == (302, files_url(job, b"log", "download"))
    response = admin_client.get(files_url(job, b"away"))
    assert response.status_code == 403
    assert "leads out of the job&#x27;s directory" in response.content.decode()


@pytest.mark.parametrize("mtime", [1e300, -1e18, 1e11, 1.7e9])
def test_times_that_no_calendar_knows_are_left_out(
    admin_client: Client, job: HpcJob, monkeypatch: pytest.MonkeyPatch, mtime: float
) -> None:
    entry = messages.Entry("x", "eA==", "file", -1, mtime)
    listed = {"entries": [dataclasses.asdict(entry)], "is_complete": True}
    monkeypatch.setattr(publish, "call_files", lambda *_, **__: listed)
    page = shown(admin_client, files_url(job)).content.decode()
    assert ("unknown" in page) is (mtime != 1.7e9)


@pytest.mark.parametrize("name_b64", ["?", "eA", "", "ä"])
def test_name_of_a_lying_cluster_leads_nowhere(
    admin_client: Client, job: HpcJob, monkeypatch: pytest.MonkeyPatch, name_b64: str
) -> None:
    entry = messages.Entry("x", name_b64, "file", 1, 0.0)
    listed = {"entries": [dataclasses.asdict(entry)], "is_complete": False}
    monkeypatch.setattr(publish, "call_files", lambda *_, **__: listed)
    (row,) = rows(shown(admin_client, files_url(job))).values()
    assert row.url == ""


def test_file_is_downloaded_in_the_name_of_who_asked(
    admin_client: Client, admin_user: User, job: HpcJob, play: Callable[[Part], Workers]
) -> None:
    workers = play(sends(CONTENT))
    response = admin_client.get(files_url(job, b"out/\xe9.dat", "download"))
    assert b"".join(response.streaming_content) == CONTENT
    response.close()
    assert workers.join() == [None]
    assert response.headers["Content-Length"] == str(len(CONTENT))
    assert response.headers["Content-Disposition"].startswith("attachment; ")
    assert response.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    row = FileTransfer.objects.get()
    assert (row.owner, row.state) == (admin_user, TransferState.COMPLETED)
    assert base64.b64decode(row.path_b64) == b"out/\xe9.dat"


def test_head_of_a_download_ends_it(
    admin_client: Client, job: HpcJob, play: Callable[[Part], Workers]
) -> None:
    workers = play(sends(CONTENT * 10_000))
    response = admin_client.head(files_url(job, b"x", "download"))
    assert response.headers["Content-Length"] == str(len(CONTENT) * 10_000)
    (problem,) = workers.join()
    assert isinstance(problem, errors.TransferBroken)


def test_pages_work_where_each_request_is_a_transaction(
    admin_client: Client,
    job: HpcJob,
    play: Callable[[Part], Workers],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(transaction.get_connection().settings_dict, "ATOMIC_REQUESTS", True)
    play(sends(CONTENT)).join()
    response = admin_client.get(files_url(job, b"x", "download"))
    assert b"".join(response.streaming_content) == CONTENT


@pytest.mark.parametrize("page", ["files", "download"])
@pytest.mark.parametrize(
    ("kind", "status", "retry_after"),
    [(errors.NotFound, 404, None), (errors.Busy, 503, "8"), (errors.Timeout, 504, None)],
)
def test_trouble_is_told_on_a_page(
    admin_client: Client,
    job: HpcJob,
    monkeypatch: pytest.MonkeyPatch,
    page: str,
    kind: type[errors.HpcError],
    status: int,
    retry_after: str | None,
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        problem = kind("'<b>\x1b': no.")
        problem.retry_after_s = 7.2
        raise problem

    monkeypatch.setattr(publish, "call_files", refuse)
    monkeypatch.setattr(publish, "start_transfer", refuse)
    response = admin_client.get(files_url(job, b"a/b", page))
    assert (response.status_code, response.headers.get("Retry-After")) == (status, retry_after)
    text = response.content.decode()
    assert "&#x27;&lt;b&gt;\\x1b&#x27;: no." in text
    assert ("Try again" in text) is kind.transient
    assert files_url(job, b"a") in text


def test_link_to_the_files_is_on_the_page_of_a_job_that_has_some(
    admin_client: Client, make_job: MakeJob, cluster: HpcCluster, job: HpcJob
) -> None:
    deleted = make_job(JobStatus.DELETED, cluster=cluster, attempt=1)
    pages = {
        chosen: admin_client.get(url("hpcjob", "change", chosen.pk)).content.decode()
        for chosen in (job, make_job(), deleted)
    }
    assert {chosen for chosen, page in pages.items() if files_url(chosen) in page} == {job}


def test_files_need_a_permission_of_their_own_unless_the_job_is_ones_own(
    client: Client, job: HpcJob, place: Path
) -> None:
    for codenames, status in (
        (("view_hpcjob",), 403),
        (("read_files_hpcjob",), 403),
        (("view_hpcjob", "read_files_hpcjob"), 200),
    ):
        client.force_login(user_with(*codenames))
        assert client.get(files_url(job)).status_code == status
    owner = user_with("view_hpcjob", "add_hpcjob")
    HpcJob.objects.filter(pk=job.pk).update(owner=owner)
    client.force_login(owner)
    assert client.get(files_url(job)).status_code == 200
    assert files_url(job) in client.get(url("hpcjob", "change", job.pk)).content.decode()
    client.force_login(User.objects.get(username="view_hpcjob"))
    assert client.get(files_url(job, b"x", "download")).status_code == 403
    assert files_url(job) not in client.get(url("hpcjob", "change", job.pk)).content.decode()
    client.logout()
    assert "/login/" in client.get(files_url(job)).url


@pytest.mark.parametrize("path", ["?", "a", "%FF", "ä"])
def test_address_that_names_no_path_is_not_found(
    admin_client: Client, job: HpcJob, path: str
) -> None:
    assert admin_client.get(f"{files_url(job)}?path={path}").status_code == 404


def test_pages_are_only_read(admin_client: Client, job: HpcJob) -> None:
    assert admin_client.post(files_url(job, b"x", "download")).status_code == 405
