"""Jobs go all the way: one, many, failed, cancelled, deleted; and their files."""

from __future__ import annotations

import time

import pytest

from controller import errors
from controller.lifecycle import JobStatus
from controller.models import HpcCluster, HpcJob
from controller.services import files, jobs
from tests.stack import Stack

pytestmark = pytest.mark.database  # the shared stack is on the database under test


def test_a_job_goes_all_the_way(shared_stack: Stack, cluster: HpcCluster) -> None:
    job = shared_stack.wait_status(shared_stack.submit(cluster))
    assert job.status is JobStatus.COMPLETED
    assert job.exit_code == 0
    assert job.scheduler_job_id
    assert len(shared_stack.runs_of(job)) == 1


def test_many_jobs_at_once_run_once_each(shared_stack: Stack, cluster: HpcCluster) -> None:
    made = [HpcJob.objects.create(cluster=cluster) for _ in range(40)]
    jobs.submit_many([(job, {"script": shared_stack.script()}) for job in made])
    for job in made:
        assert shared_stack.wait_status(job, limit_s=90).status is JobStatus.COMPLETED
        assert len(shared_stack.runs_of(job)) == 1


def test_a_failed_job_tells_its_exit_code(shared_stack: Stack, cluster: HpcCluster) -> None:
    job = shared_stack.submit(cluster, shared_stack.script(status=3))
    assert shared_stack.wait_status(job).status is JobStatus.ERROR
    assert job.exit_code == 3


def test_a_running_job_is_cancelled_and_its_data_deleted(
    shared_stack: Stack, cluster: HpcCluster
) -> None:
    job = shared_stack.submit(cluster, shared_stack.script(seconds=60))
    shared_stack.wait_status(job, JobStatus.RUNNING)
    jobs.cancel(job)
    assert shared_stack.wait_status(job, limit_s=15).status is JobStatus.CANCELLED
    directory = shared_stack.client_path / "jobs" / job.tag
    assert directory.is_dir()
    jobs.delete(job)
    shared_stack.wait_status(job, JobStatus.DELETED, limit_s=15)
    assert not directory.exists()


def test_a_lost_job_is_followed_again_once_somebody_looks(
    shared_stack: Stack, cluster: HpcCluster
) -> None:
    go = shared_stack.directory / "looked"
    job = shared_stack.submit(cluster, shared_stack.script_until(go))
    shared_stack.wait_status(job, JobStatus.RUNNING)
    jobs.block(job.pk, "unknown_to_cluster", "The client does not know it.")
    jobs.look_again(HpcJob.objects.get(pk=job.pk))
    found = HpcJob.objects.filter(pk=job.pk, blocked_reason="", job_status=JobStatus.RUNNING)
    shared_stack.wait(found.exists, "the job to go on")
    go.touch()
    assert shared_stack.wait_status(job).status is JobStatus.COMPLETED


def test_files_are_listed_and_read_without_a_daemon(
    shared_stack: Stack, cluster: HpcCluster
) -> None:
    job = shared_stack.wait_status(shared_stack.submit(cluster))
    pid = shared_stack.link(cluster).daemon_pid
    assert pid is not None
    with shared_stack.frozen(pid):
        listed = files.list_directory(job)
        entries = {entry["name"]: entry for entry in listed["entries"]}
        assert entries["stdout.log"]["type"] == "file"
        assert files.stat(job, "stdout.log")["size_bytes"] == len("hello\n")
        assert b"".join(files.read_whole(job, "stdout.log")) == b"hello\n"
        with pytest.raises(errors.HpcError, match="nothing"):
            files.stat(job, "nothing.here")
        with pytest.raises(errors.HpcError):
            files.read(job, "../../../etc/passwd", 0, 100)


def test_a_flooded_cluster_does_not_starve_another(
    shared_stack: Stack, cluster: HpcCluster
) -> None:
    slow = shared_stack.add_cluster("slow")
    shared_stack.wait_up(slow)
    pid = shared_stack.link(slow).daemon_pid
    assert pid is not None
    with shared_stack.frozen(pid):
        flood = [shared_stack.submit(slow) for _ in range(12)]
        begun_at = time.monotonic()
        job = shared_stack.wait_status(shared_stack.submit(cluster))
        took_s = time.monotonic() - begun_at
    assert job.status is JobStatus.COMPLETED
    assert took_s < 9  # a request to the frozen one waits 10 s
    for each in flood:
        assert shared_stack.wait_status(each).status is JobStatus.COMPLETED
        assert len(shared_stack.runs_of(each)) == 1


def test_a_job_cancelled_while_its_submission_is_in_doubt_never_runs_on(stack: Stack) -> None:
    worker, _ = stack.start_with_fault("worker.submit.2")
    cluster = stack.add_cluster()
    stack.wait_up(cluster)
    job = stack.submit(cluster, stack.script(seconds=60))
    stack.wait(lambda: worker.has_ended, "the worker to die")
    jobs.cancel(job)
    stack.start_worker()
    assert stack.wait_status(job).status is JobStatus.CANCELLED
