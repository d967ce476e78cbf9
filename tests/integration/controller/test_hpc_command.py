"""`manage.py hpc`: one sentence for what goes wrong, one JSON document where it is asked for."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from controller import publish
from controller.lifecycle import Event, JobStatus
from controller.models import ClusterLink, HpcCluster, HpcJob
from controller.services import clusters, jobs, links

from .conftest import SCRIPT, MakeJob


class Result:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


def hpc(*words: object) -> Result:
    """Run one verb in this process."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("hpc", *map(str, words), stdout=out, stderr=err)
    except SystemExit as exit_:
        return Result(int(str(exit_.code)), out.getvalue(), err.getvalue())
    return Result(0, out.getvalue(), err.getvalue())


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "job.sh"
    path.write_text(SCRIPT)
    return path


def assert_refused(result: Result, *words: str) -> None:
    assert result.status == 1
    assert result.out == ""
    assert len(result.err.strip().splitlines()) == 1
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err


def test_a_cluster_from_registration_to_removal(db: None) -> None:
    path = "/opt/hpc/client.py"
    add = hpc("cluster", "add", "north", "--host", "localhost", "--client-path", path)
    assert (add.status, "/opt/hpc." in add.out) == (0, True)
    (listed,) = json.loads(hpc("cluster", "list", "--json").out)
    assert (listed["name"], listed["client_path"], listed["connected"]) == (
        "north",
        "/opt/hpc",
        False,
    )
    assert "not wanted" in hpc("cluster", "list").out
    assert hpc("cluster", "connect", "north").status == 0
    shown = json.loads(hpc("cluster", "show", "north", "--json").out)
    assert shown["link"]["wanted"] is True
    assert hpc("cluster", "bootstrap", "north").status == 0
    assert_refused(hpc("cluster", "remove", "north"), "north", "disconnect")
    assert hpc("cluster", "disconnect", "north").status == 0
    assert hpc("cluster", "remove", "north").status == 0
    assert json.loads(hpc("cluster", "list", "--json").out) == []


@pytest.mark.parametrize(
    "words",
    [
        ("cluster", "show", "nowhere"),
        ("cluster", "connect", "nowhere"),
        ("cluster", "add", "x", "--host", "localhost", "--client-path", "relative"),
        ("cluster", "add", "x", "--host", "example.org", "--client-path", "/x"),
        ("adopt", "nowhere"),
        ("job", "show", "99"),
        ("job", "wait", "99"),
        ("job", "events", "99"),
        ("job", "output", "99"),
        ("job", "submit", "--script", "/no/such/file"),
        ("job", "submit", "--script", "/"),
        ("job", "submit", "--script", "/dev/null", "--cluster", "nowhere"),
        ("job", "submit", "--script", "/dev/null"),
        ("job", "list", "--cluster", "nowhere"),
        ("job", "show", "9" * 18),
    ],
)
def test_a_failure_is_one_sentence(db: None, words: tuple[str, ...]) -> None:
    assert_refused(hpc(*words))


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("cluster",),
        ("job", "explode"),
        ("job", "show"),
        ("job", "show", "x"),
        ("job", "show", "-1"),
        ("job", "show", "9" * 30),
        ("job", "submit"),
        ("job", "submit", "--script", "x", "--resource", "nodes"),
        ("job", "submit", "--script", "x", "--resource", "nodes=many"),
        ("job", "submit", "--script", "x", "--resource", "gpus=1"),
        ("job", "list", "--status", "sleeping"),
        ("job", "wait", "1", "--limit", "nan"),
        ("job", "wait", "1", "--limit", "inf"),
        ("job", "wait", "1", "--limit", "-1"),
        ("cluster", "connect", "x", "--limit", "nan"),
        ("cluster", "add", "x"),
        ("cluster", "add", "x", "--host", "h", "--client-path", "/x", "--scheduler", "abacus"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_done(words: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        call_command("hpc", *words)


def test_a_job_is_submitted_and_shown(cluster: HpcCluster, script: Path) -> None:
    asked = ("--resource", "nodes=2", "--resource", "partition=short", "--environment", "A=b=c")
    words = ("job", "submit", "--cluster", "north", "--script", script, "--name", "mine", *asked)
    result = hpc(*words)
    job = HpcJob.objects.get()
    assert result.status == 0
    assert result.out == f"job {job.pk}: submitted to north, tag {job.tag}\n"
    assert "no link" in result.err
    assert (job.name, job.nodes, job.partition, job.environment) == (
        "mine",
        2,
        "short",
        {"A": "b=c"},
    )
    shown = json.loads(hpc("job", "show", job.pk, "--json").out)
    assert (shown["status"], shown["resources"]) == ("PENDING", {"nodes": 2, "partition": "short"})
    assert f"{job.tag}" in hpc("job", "show", job.pk).out
    (event,) = json.loads(hpc("job", "events", job.pk, "--json").out)
    assert (event["event"], event["after"]) == ("submit", "PENDING")
    assert "PENDING" in hpc("job", "events", job.pk).out


def test_when_the_cluster_last_confirmed_a_job_is_shown(
    cluster: HpcCluster, lease: links.Lease, make_job: MakeJob
) -> None:
    job = make_job(JobStatus.RUNNING, cluster=cluster)
    assert "last confirmed" not in hpc("job", "show", job.pk).out
    links.note_confirmed(cluster.pk, lease.epoch)
    (line,) = [
        line for line in hpc("job", "show", job.pk).out.splitlines() if "last confirmed" in line
    ]
    assert re.match(r"last confirmed +\d s ago \(2", line)
    (listed,) = json.loads(hpc("job", "list", "--json").out)
    assert (
        listed["last_confirmed"]
        == json.loads(hpc("job", "show", job.pk, "--json").out)["last_confirmed"]
    )


def test_a_refused_script_leaves_no_draft_behind(cluster: HpcCluster, script: Path) -> None:
    script.write_bytes(b"echo\r\n")
    assert_refused(hpc("job", "submit", "--cluster", "north", "--script", script), "CRLF")
    script.write_bytes(b"#!/bin/sh\n\xff")
    assert_refused(hpc("job", "submit", "--cluster", "north", "--script", script), "UTF-8")
    script.write_bytes(b"#!/bin/sh\n" + b"x" * (600 << 10))
    assert_refused(hpc("job", "submit", "--cluster", "north", "--script", script), "491520")
    script.write_text(SCRIPT)
    words = ("job", "submit", "--cluster", "north", "--script", script, "--name", "x" * 201)
    assert_refused(hpc(*words), "at most 200")
    assert not HpcJob.objects.exists()


def test_with_json_stdout_is_one_document(cluster: HpcCluster, script: Path) -> None:
    result = hpc("job", "submit", "--cluster", "north", "--script", script, "--json")
    assert json.loads(result.out)["status"] == "PENDING"
    assert "submitted to north" in result.err


def test_listing_is_filtered_and_bounded(cluster: HpcCluster, make_job: MakeJob) -> None:
    for status in (JobStatus.RUNNING, JobStatus.COMPLETED, JobStatus.COMPLETED):
        make_job(status, cluster=cluster, exit_code=0)
    make_job(JobStatus.ERROR, signal=9, job_details="why\nmore")
    assert len(json.loads(hpc("job", "list", "--json").out)) == 4
    chosen = ("job", "list", "--json", "--status", "completed", "--status", "error")
    assert [job["status"] for job in json.loads(hpc(*chosen).out)] == [
        "ERROR",
        "COMPLETED",
        "COMPLETED",
    ]
    assert len(json.loads(hpc("job", "list", "--json", "--limit", "2").out)) == 2
    assert len(json.loads(hpc("job", "list", "--json", "--cluster", "north").out)) == 3
    assert "signal 9  why\n" in hpc("job", "list").out


def test_cancel_and_delete_go_on_past_a_refusal(cluster: HpcCluster, make_job: MakeJob) -> None:
    pending, ended = make_job(JobStatus.PENDING), make_job(JobStatus.COMPLETED)
    result = hpc("job", "cancel", ended.pk, pending.pk)
    assert (result.status, result.out) == (1, f"job {pending.pk}: Cancelled\n")
    assert f"Job {ended.pk} has ended as Completed" in result.err
    result = hpc("job", "delete", pending.pk, ended.pk)
    assert (result.status, result.out) == (
        0,
        f"job {pending.pk}: Deleted\njob {ended.pk}: Deleted\n",
    )


# Waiting ------------------------------------------------------------------------------------------


@pytest.fixture
def meanwhile(transactional_db: None) -> Iterator[Callable[..., None]]:
    """Does something in another thread, with a connection of its own, while a verb waits."""
    threads: list[threading.Thread] = []

    def start(*steps: Callable[[], Any]) -> None:
        def run() -> None:
            for step in steps:
                step()
            connection.close()

        threads.append(threading.Thread(target=run))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def ends(job: HpcJob, event: Event, **updates: Any) -> Callable[[], Any]:
    return lambda: jobs.apply(job.pk, event, source="cluster", updates=updates)


@pytest.mark.parametrize(
    ("event", "updates", "status", "last"),
    [
        (Event.COMPLETE, {"exit_code": 0}, 0, "Completed, exit code 0"),
        (Event.FAIL, {"exit_code": 3}, 1, "Error, exit code 3"),
        (Event.EXCEED_MEMORY, {"signal": 9}, 1, "Out of memory, signal 9"),
        (Event.CONFIRM_CANCEL, {}, 1, "Cancelled"),
    ],
)
def test_waiting_tells_each_change_and_how_it_ended(
    meanwhile: Any, make_job: MakeJob, event: Event, updates: Any, status: int, last: str
) -> None:
    job = make_job(JobStatus.PENDING)
    moves = (Event.CLAIM, Event.ACCEPT, Event.QUEUE, Event.START)
    meanwhile(*(ends(job, move) for move in moves), ends(job, event, **updates))
    result = hpc("job", "wait", job.pk, "--limit", 20)
    assert result.status == status
    states = ("Submitting", "Submitted", "Queued", "Running", last)
    assert result.out == "".join(f"job {job.pk}: {state}\n" for state in states)


def test_waiting_for_several_needs_all_to_complete(meanwhile: Any, make_job: MakeJob) -> None:
    good, bad = make_job(JobStatus.RUNNING), make_job(JobStatus.RUNNING)
    meanwhile(ends(good, Event.COMPLETE), ends(bad, Event.FAIL))
    result = hpc("job", "wait", good.pk, bad.pk, "--json", "--limit", 20)
    assert result.status == 1
    assert [job["status"] for job in json.loads(result.out)] == ["COMPLETED", "ERROR"]


def test_a_wait_has_its_limit_and_the_jobs_go_on(make_job: MakeJob) -> None:
    job = make_job(JobStatus.RUNNING)
    assert_refused(hpc("job", "wait", job.pk, "--limit", "0.1"), "1 of 1", "go on")


def test_what_holds_a_job_back_is_told(make_job: MakeJob) -> None:
    job = make_job(JobStatus.PENDING)
    jobs.block(job.pk, "limits", "Your account is full.")
    result = hpc("job", "wait", job.pk, "--limit", "0.1")
    assert f"job {job.pk}: Pending, held back: Your account is full." in result.out


def test_adding_with_connect_waits_for_the_link(meanwhile: Any) -> None:
    def hold() -> None:
        while not (ids := links.candidates(1)):
            connection.close()
        lease = links.take(ids[0], "a")
        assert lease is not None
        links.record_up(ids[0], lease.epoch, {"host": "h"})

    meanwhile(hold)
    words = ("cluster", "add", "north", "--host", "localhost", "--client-path", "/x")
    result = hpc(*words, "--connect", "--limit", 20)
    assert (result.status, "is up." in result.out) == (0, True)


def test_a_link_that_cannot_be_made_says_why(cluster: HpcCluster) -> None:
    result = hpc("cluster", "connect", "north", "--wait", "--limit", "0.1")
    assert_refused(result, "north", "celery -A workers")
    lease = links.take(cluster.pk, "a")
    assert lease is not None
    links.record_down(cluster.pk, lease.epoch, "No Python there.")
    ClusterLink.objects.update(holder="a")
    result = hpc("cluster", "connect", "north", "--wait", "--limit", "0.1")
    assert_refused(result, "north")


# As a process -------------------------------------------------------------------------------------


def manage(checkout: Path, database_url: str, *words: str, **environment: str) -> Result:
    """Run the command as people do."""
    done = subprocess.run(
        [sys.executable, str(checkout / "manage.py"), "hpc", *words],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "controller.project.settings",
            "HPC_DATABASE_URL": database_url,
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def test_a_database_without_tables_or_none_at_all_is_one_sentence(
    checkout: Path, database_url: str
) -> None:
    assert_refused(manage(checkout, database_url, "job", "list"), "manage.py migrate")
    gone = manage(checkout, "postgres://u@127.0.0.1:1/x", "job", "list")
    assert_refused(gone, "can't be reached", "HPC_DATABASE_URL")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HPC_LEASE_TTL_S", "soon"),
        ("HPC_INSTANCE_ID", "Has Spaces"),
        ("HPC_SECRET_KEYS", "hunter2"),
        ("HPC_JOB_CLASS", "no.such.Thing"),
        ("HPC_CLUSTER_CHOOSER", "no.such"),
        ("HPC_DATABASE_URL", "garbage"),
        ("HPC_DATABASE_URL", "postgres://u:hunter2@host:port/x"),
        ("HPC_DATABASE_URL", "mysql://u@host/x"),
        ("HPC_REDIS_URL", "nonsense"),
        ("HPC_REDIS_URL", "redis://:hunter2@host:port/0"),
        ("HPC_LOG_LEVEL", "loud"),
        ("HPC_DATA_DIRECTORY", "/dev/null/x"),
    ],
)
def test_a_bad_setting_is_one_sentence(checkout: Path, name: str, value: str) -> None:
    url = "" if name == "HPC_DATA_DIRECTORY" else "sqlite:////nonexistent/x"
    settings = {"HPC_DATABASE_URL": url, name: value}
    bad = manage(checkout, settings.pop("HPC_DATABASE_URL"), "job", "list", **settings)
    assert_refused(bad)
    assert name in bad.err or value.startswith("mysql"), bad.err
    assert "hunter2" not in bad.err


@pytest.mark.parametrize("name", ["HPC_DATABASE_URL", "HPC_REDIS_URL", "HPC_SECRET_KEYS"])
def test_the_checks_of_a_start_name_a_bad_setting(checkout: Path, name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(checkout / "manage.py"), "check"],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "controller.project.settings", name: "x"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_usage_exits_with_2(checkout: Path, database_url: str) -> None:
    result = manage(checkout, database_url, "job", "show", "x")
    assert result.status == 2
    assert "'x' is no whole number above 0" in result.err


def test_without_redis_a_job_is_accepted_all_the_same_and_the_log_is_quiet(
    checkout: Path, tmp_path: Path, script: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'db.sqlite3'}"
    subprocess.run(
        [sys.executable, str(checkout / "manage.py"), "migrate", "-v0"],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "controller.project.settings",
            "HPC_DATABASE_URL": url,
        },
        check=True,
        timeout=60,
    )
    words = ("cluster", "add", "north", "--host", "localhost", "--client-path", "/x")
    assert manage(checkout, url, *words).status == 0
    submit = ("job", "submit", "--cluster", "north", "--script", str(script))
    result = manage(checkout, url, *submit)
    assert (result.status, len(result.err.splitlines())) == (0, 1)
    assert "no link" in result.err
    shown = manage(checkout, url, "job", "list", "--json")
    assert json.loads(shown.out)[0]["status"] == "PENDING"
    assert_refused(manage(checkout, url, "job", "delete", "1"), "Job 1 is Pending")
    assert "nudge not sent" in manage(checkout, url, "-v", "2", *submit).err


def test_output_is_read_in_slices_to_its_end(
    cluster: HpcCluster, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"stdout.log": b"first \x1b[31mline\n" * 3, "stderr.log": b"trouble\n"}

    def answer(verb: str, job_id: int, path: str, offset: int, length: int, **_: Any) -> Any:
        piece = content[path][offset : offset + min(length, 7)]
        return {"data_b64": base64.b64encode(piece).decode()}

    monkeypatch.setattr(publish, "call_files", answer)
    job = make_job(JobStatus.COMPLETED, cluster=cluster, attempt=1)
    result = hpc("job", "output", job.pk)
    assert result.err == ""
    assert result.out == "first line\n" * 3
    assert hpc("job", "output", job.pk, "--stderr").out == "trouble\n"


def test_output_of_a_deleted_job_says_that_it_was_deleted(
    cluster: HpcCluster, make_job: MakeJob
) -> None:
    job = make_job(JobStatus.DELETED, cluster=cluster, attempt=1)
    assert_refused(hpc("job", "output", job.pk), f"job {job.pk}", "deleted")


def test_a_copy_is_adopted(cluster: HpcCluster) -> None:
    ClusterLink.objects.update(instance_id="production")
    assert_refused(hpc("cluster", "connect", "north", "--wait", "--limit", "0.1"), "No worker")
    assert links.take(cluster.pk, "a") is None
    assert_refused(hpc("cluster", "connect", "north"), "hpc adopt north")
    assert hpc("adopt", "north").status == 0
    assert links.take(cluster.pk, "a") is not None
    assert clusters.ensure_link(cluster).instance_id == "test"
