"""Submitting: a portal's own code holds no lock, and of many jobs each stands for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection
from django.test import Client
from django.urls import reverse

from controller import errors, publish
from controller.lifecycle import JobStatus
from controller.models import ClusterLink, HpcCluster, HpcJob
from controller.services import jobs, links

from .conftest import SCRIPT, WELCOME

PLAIN = {"script": SCRIPT}
RENDERED = {"steps": 3}


def up(cluster: HpcCluster) -> None:
    """Have the cluster's link held."""
    lease = links.take(cluster.pk, "holder")
    assert lease is not None
    assert links.record_up(cluster.pk, lease.epoch, WELCOME)


@pytest.fixture
def calls(
    transactional_db: None, cluster: HpcCluster, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """The portal's own methods, as they are called; each refuses to run in a transaction."""
    called: list[str] = []

    def render(job: HpcJob, parameters: Any) -> str:
        assert not connection.in_atomic_block
        assert HpcJob.objects.filter(pk=job.pk).exists()
        called.append("render")
        return SCRIPT

    def choose_cluster(job: HpcJob, parameters: Any) -> HpcCluster | None:
        assert not connection.in_atomic_block
        called.append("choose_cluster")
        return cluster

    monkeypatch.setattr(HpcJob, "render", render)
    monkeypatch.setattr(HpcJob, "choose_cluster", choose_cluster)
    return called


BOTH = ["render", "choose_cluster"]


def test_the_portals_code_runs_outside_of_transactions(calls: list[str]) -> None:
    jobs.submit(HpcJob(), RENDERED)
    jobs.submit(HpcJob.objects.create(), RENDERED)
    jobs.submit_many([(HpcJob(), RENDERED), (HpcJob.objects.create(), RENDERED)])
    assert calls == BOTH * 4
    assert {job.status for job in HpcJob.objects.all()} == {JobStatus.PENDING}


def test_the_command_and_the_admin_hold_no_transaction_around_it(
    calls: list[str], admin_client: Client, tmp_path: Path
) -> None:
    script = tmp_path / "job.sh"
    script.write_text(SCRIPT)
    call_command("hpc", "job", "submit", "--script", str(script))
    assert calls == ["choose_cluster"]
    chosen, opened = (HpcJob.objects.create(job_parameters=RENDERED) for _ in range(2))
    names = ("changelist", "change")
    every, one = (f"admin:hpc_job_controller_hpcjob_{name}" for name in names)
    admin_client.post(reverse(every), {"action": "submit", "_selected_action": [chosen.pk]})
    form = {
        "name": "renamed", "script": "", "environment": "{}", "job_parameters": '{"steps": 3}',
        "events-TOTAL_FORMS": "0", "events-INITIAL_FORMS": "0", "_hpc_submit": "Submit",
    }  # fmt: skip
    told = admin_client.post(reverse(one, args=[opened.pk]), form, follow=True).content.decode()
    assert "1 job accepted" in told
    assert calls[1:] == BOTH * 2
    assert {job.status for job in HpcJob.objects.all()} == {JobStatus.PENDING}
    opened.refresh_from_db()
    assert (opened.name, opened.script) == ("renamed", SCRIPT)


def test_jobs_that_waited_for_a_cluster_are_placed_outside_of_transactions(
    calls: list[str], cluster: HpcCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(HpcJob, "choose_cluster", lambda self, parameters: None)
        job = HpcJob()
        jobs.submit(job, RENDERED)
    up(cluster)
    job.refresh_from_db()
    assert (calls, job.cluster) == (BOTH, cluster)


def test_what_was_cancelled_while_it_was_rendered_stays_so(
    cluster: HpcCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = HpcJob.objects.create(name="old", cluster=cluster)

    def render(self: HpcJob, parameters: Any) -> str:
        jobs.cancel(HpcJob.objects.get(pk=self.pk))
        return SCRIPT

    monkeypatch.setattr(HpcJob, "render", render)
    job.name = "new"
    with pytest.raises(errors.IllegalMove, match=f"Job {job.pk} .*meanwhile"):
        jobs.submit(job, RENDERED)
    found = HpcJob.objects.get()
    assert (found.status, found.name, found.script) == (JobStatus.CANCELLED, "old", "")


def test_what_the_portal_changed_is_stored_with_the_submission(cluster: HpcCluster) -> None:
    job = HpcJob.objects.create(name="old", cluster=cluster)
    stale = HpcJob.objects.get(pk=job.pk)
    job.name, job.tasks = "new", 4
    jobs.submit(job, {**PLAIN, "resources": {"nodes": 2}})
    found = HpcJob.objects.get()
    assert (found.name, found.tasks, found.nodes) == ("new", 4, 2)
    with pytest.raises(errors.IllegalMove):
        jobs.submit(stale, PLAIN)
    jobs.cancel(job)
    job.delete()
    with pytest.raises(errors.NotFound):
        jobs.submit(stale, PLAIN)


def test_a_refused_new_job_can_be_mended_and_given_again(cluster: HpcCluster) -> None:
    job = HpcJob(cluster=cluster)
    for bad in ({"script": "echo"}, RENDERED, {"template": "absent"}):
        with pytest.raises(errors.Invalid):
            jobs.submit(job, bad)
        assert not HpcJob.objects.exists()
    jobs.submit(job, PLAIN)
    assert HpcJob.objects.get() == job


@pytest.mark.parametrize("many", [False, True])
def test_a_portals_own_error_leaves_no_draft(
    cluster: HpcCluster, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    monkeypatch.setattr(HpcJob, "render", lambda self, parameters: parameters["absent"])
    pairs = [(HpcJob(cluster=cluster), PLAIN), (HpcJob(cluster=cluster), RENDERED)]
    with pytest.raises(KeyError):
        if many:
            jobs.submit_many(pairs)
        else:
            jobs.submit(*pairs[1])
    assert not HpcJob.objects.exists()


@pytest.mark.parametrize(
    ("name", "words"), [("x" * 201, "at most 200"), ("a\nb", "line end"), ("\ud800", "line end")]
)
def test_a_name_that_is_not_kept_is_refused(cluster: HpcCluster, name: str, words: str) -> None:
    for submit in (jobs.submit, lambda job, asked: jobs.submit_many([(job, asked)])):
        with pytest.raises(errors.Invalid, match=words):
            submit(HpcJob(cluster=cluster, name=name), PLAIN)
    assert not HpcJob.objects.exists()


# Many ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_what_somebody_else_submitted_meanwhile_does_not_stop_the_rest(
    transactional_db: None,
    cluster: HpcCluster,
    sent: Any,
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
) -> None:
    monkeypatch.setattr(jobs, "BATCH", batch)
    made = [HpcJob.objects.create(cluster=cluster, name=str(n)) for n in range(4)]

    def render(self: HpcJob, parameters: Any) -> str:
        jobs.submit(HpcJob.objects.get(pk=made[1].pk), PLAIN)
        sent.clear()
        return SCRIPT

    monkeypatch.setattr(HpcJob, "render", render)
    pairs: list[Any] = [(job, PLAIN) for job in made[:3]] + [(made[3], RENDERED)]
    with pytest.raises(errors.NotAllSubmitted, match="3 of 4 jobs were submitted") as caught:
        jobs.submit_many(pairs)
    assert caught.value.accepted == tuple(made[n].pk for n in (0, 2, 3))
    assert list(caught.value.refused) == [made[1].pk]
    assert "meanwhile" in caught.value.refused[made[1].pk]
    assert sent == [(publish.DRAIN_CLUSTER, cluster.pk, f"cluster.{cluster.pk}")]
    assert {job.status for job in HpcJob.objects.all()} == {JobStatus.PENDING}
    assert [job.events.count() for job in made] == [1] * 4


def test_no_nudge_is_sent_where_none_entered(
    transactional_db: None, cluster: HpcCluster, sent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = HpcJob.objects.create(cluster=cluster)

    def render(self: HpcJob, parameters: Any) -> str:
        jobs.cancel(HpcJob.objects.get(pk=job.pk))
        return SCRIPT

    monkeypatch.setattr(HpcJob, "render", render)
    with pytest.raises(errors.NotAllSubmitted, match="0 of 1"):
        jobs.submit_many([(job, RENDERED)])
    assert sent == []


def test_what_entered_before_the_database_failed_is_nudged(
    transactional_db: None, cluster: HpcCluster, sent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BATCH", 2)
    made = [HpcJob(cluster=cluster) for _ in range(5)]
    enter = jobs._enter

    def fail_at_the_fourth(accepted: jobs.Accepted, source: str) -> None:
        enter(accepted, source)
        if accepted.job is made[3]:
            raise OperationalError("the server went away")

    monkeypatch.setattr(jobs, "_enter", fail_at_the_fourth)
    with pytest.raises(OperationalError):
        jobs.submit_many([(job, PLAIN) for job in made])
    found = [job.status for job in HpcJob.objects.order_by("pk")]
    assert found == [JobStatus.PENDING] * 2 + [JobStatus.DRAFT] * 3
    assert sent == [(publish.DRAIN_CLUSTER, cluster.pk, f"cluster.{cluster.pk}")]
    assert ClusterLink.objects.get().wanted
