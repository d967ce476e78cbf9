"""Many jobs, cancels, deletions, and their files."""

from __future__ import annotations

import time

import pytest

from controller import errors
from controller.lifecycle import JobStatus
from controller.models import HpcJob
from controller.services import files, jobs
from tests.stack import Stack


def test_many_jobs_at_once_run_once_each(stack: Stack) -> None:
    stack.start_worker()
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    pairs = [
        (HpcJob.objects.create(cluster=cluster), {"script": stack.script()}) for _ in range(60)
    ]
    jobs.submit_many(pairs)
    stack.wait(
        lambda: not HpcJob.objects.exclude(job_status=JobStatus.COMPLETED).exists(),
        "all to be completed",
        90,
    )
    assert len(stack.runs()) == 60
    assert len(set(stack.runs())) == 60


def test_a_failed_job_tells_its_exit_code(stack: Stack) -> None:
    stack.start_worker()
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    job = stack.wait_status(stack.submit(cluster, stack.script(status=3)))
    assert job.status is JobStatus.ERROR
    assert job.exit_code == 3


def test_a_running_job_is_cancelled_and_its_data_deleted(stack: Stack) -> None:
    stack.start_worker()
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    job = stack.submit(cluster, stack.script(seconds=60))
    stack.wait_status(job, JobStatus.RUNNING)
    jobs.cancel(job)
    assert stack.wait_status(job, limit_s=15).status is JobStatus.CANCELLED
    directory = stack.client_path / "jobs" / job.tag
    assert directory.is_dir()
    jobs.delete(job)
    stack.wait_status(job, JobStatus.DELETED, limit_s=15)
    assert not directory.exists()


def test_a_job_cancelled_while_its_submission_is_in_doubt_does_not_run_on(stack: Stack) -> None:
    worker, _ = stack.start_with_fault("worker.submit.2")
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    job = stack.submit(cluster, stack.script(seconds=60))
    stack.wait(lambda: worker.has_ended, "the worker to die")
    jobs.cancel(job)
    stack.start_worker()
    assert stack.wait_status(job).status is JobStatus.CANCELLED


def test_files_are_listed_and_read_without_a_link(stack: Stack) -> None:
    worker = stack.start_worker()
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    job = stack.wait_status(stack.submit(cluster))
    stack.stop_worker(worker)
    stack.start_worker(queues="files")
    listed = files.list_directory(job)
    names = {entry["name"]: entry for entry in listed["entries"]}
    assert "stdout.log" in names
    assert names["stdout.log"]["type"] == "file"
    assert files.stat(job, "stdout.log")["size_bytes"] == len("hello\n")
    assert b"".join(files.read_whole(job, "stdout.log")) == b"hello\n"
    with pytest.raises(errors.HpcError, match="nothing"):
        files.stat(job, "nothing.here")
    with pytest.raises(errors.HpcError):
        files.read(job, "../../../etc/passwd", 0, 100)
    assert stack.holders() == [], "a files worker holds no link"


def test_a_flooded_cluster_does_not_starve_another(stack: Stack) -> None:
    stack.start_worker({"HPC_CLUSTER_TASK_CAP": "2"})
    slow, quick = stack.add_cluster("slow"), stack.add_cluster("quick")
    stack.wait_up(slow)
    stack.wait_up(quick)
    pid = stack.link(slow).daemon_pid
    assert pid is not None
    with stack.frozen(pid):
        for _ in range(12):
            stack.submit(slow)
        begun_at = time.monotonic()
        job = stack.wait_status(stack.submit(quick))
        took_s = time.monotonic() - begun_at
    assert job.status is JobStatus.COMPLETED
    assert took_s < 4
    stack.wait(
        lambda: HpcJob.objects.filter(job_status=JobStatus.COMPLETED).count() == 13,
        "the slow cluster's jobs",
    )
    assert len(stack.runs()) == 13
