"""The admin: all tables readable, actions that only enqueue, refusals in sentences."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission, User
from django.test import Client

from controller import lifecycle, publish
from controller.admin.jobs import VERBS
from controller.lifecycle import JobStatus
from controller.models import (
    ClusterLink,
    HostKey,
    HpcCluster,
    HpcJob,
    LoginAttempt,
    OutboxCursor,
    Procedure,
    UpkeepLease,
    Worker,
)
from controller.models.token import WebsocketToken
from controller.models.transfer import FileTransfer
from controller.services import jobs, links

from .conftest import SCRIPT, MakeJob
from .pages import APP, act, url, user_with

JOB_FORM = {
    "name": "mine", "owner": "", "script": "#!/bin/sh\r\necho\r\n", "cluster": "",
    "environment": "", "job_parameters": "", "nodes": "2", "tasks": "", "cpus_per_task": "",
    "memory_mib": "", "walltime_s": "", "partition": "short", "account": "", "qos": "",
}  # fmt: skip


def test_every_table_has_its_pages(
    admin_client: Client, cluster: HpcCluster, lease: links.Lease, make_job: MakeJob
) -> None:
    job = make_job(JobStatus.RUNNING, cluster=cluster)
    job.cancel()
    links.heartbeat("w", "h", 1, False)
    FileTransfer.objects.create(cluster=cluster, job=job, direction="download", path="a")
    WebsocketToken.objects.create(cluster=cluster)
    UpkeepLease.objects.create(name="tokens")
    OutboxCursor.objects.get_or_create(cluster=cluster, outbox_id="box")
    HostKey.objects.create(cluster=cluster, key_type="ssh-ed25519", fingerprint="SHA256:x")
    LoginAttempt.objects.create(cluster=cluster, purpose="test")
    procedure = Procedure.objects.create(cluster=cluster, kind="test")
    procedure.steps.create(name="Log in", outcome="done", took_s=0.1)
    models = apps.get_app_config(APP).get_models()
    names = {model._meta.model_name: model for model in models}
    for name, model in names.items():
        assert name is not None
        assert admin_client.get(url(name, "changelist")).status_code == 200, name
        first = model._base_manager.first()
        assert first is not None, name
        assert admin_client.get(url(name, "change", first.pk)).status_code == 200, name


def test_a_job_is_drafted_and_submitted(
    admin_client: Client, cluster: HpcCluster, sent: Any, committed: Any
) -> None:
    response = admin_client.post(url("hpcjob", "add"), {**JOB_FORM, "cluster": cluster.pk})
    assert response.status_code == 302, response.context["adminform"].form.errors
    job = HpcJob.objects.get()
    assert (job.status, job.script, job.nodes) == (JobStatus.DRAFT, "#!/bin/sh\necho\n", 2)
    with committed():
        told = act(admin_client, "hpcjob", "submit", job)
    assert told.endswith("1 job accepted; a worker does the rest.")
    job.refresh_from_db()
    assert (job.status, job.partition, job.cluster) == (JobStatus.PENDING, "short", cluster)
    assert job.events.get().source == "admin"
    assert sent == [(publish.SUBMIT_JOB, job.pk, f"cluster.{cluster.pk}")]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("script", "echo", "must begin with #!"),
        ("environment", '{"a b": "1"}', "no name"),
        ("environment", "[]", "object"),
        ("job_parameters", '{"a": "\\u0000"}', "NUL"),
        ("nodes", "0", "greater than or equal to 1"),
    ],
)
def test_a_bad_draft_is_refused_at_its_field(
    admin_client: Client, column: str, value: str, words: str
) -> None:
    response = admin_client.post(url("hpcjob", "add"), {**JOB_FORM, column: value})
    assert words in " ".join(response.context["adminform"].form.errors[column])
    assert not HpcJob.objects.exists()


def test_a_draft_is_revised_and_what_was_submitted_is_not(
    admin_client: Client, cluster: HpcCluster, make_job: MakeJob
) -> None:
    job = make_job(script="#!/bin/sh\nold\n")
    revised = {**JOB_FORM, "script": SCRIPT, "cluster": cluster.pk}
    admin_client.post(url("hpcjob", "change", job.pk), revised)
    job.refresh_from_db()
    assert (job.name, job.script, job.cluster, job.nodes) == ("mine", SCRIPT, cluster, 2)
    HpcJob._base_manager.update(job_status=JobStatus.PENDING)
    hostile = {**JOB_FORM, "name": "renamed", "script": "#!/bin/sh\nrm\n", "job_status": "500"}
    admin_client.post(url("hpcjob", "change", job.pk), hostile)
    job.refresh_from_db()
    assert (job.name, job.script, job.status) == ("renamed", SCRIPT, JobStatus.PENDING)


def test_what_cannot_be_done_is_skipped_with_the_reasons(
    admin_client: Client, cluster: HpcCluster, make_job: MakeJob
) -> None:
    made = [
        make_job(status, cluster=cluster) for status in (JobStatus.RUNNING, JobStatus.COMPLETED)
    ]
    more = [make_job(JobStatus.ERROR) for _ in range(6)]
    told = act(admin_client, "hpcjob", "cancel", *made, *more)
    assert told.startswith("1 job to be cancelled: a worker does it. | 7 jobs skipped: Job ")
    assert "has ended as" in told
    assert "(and 2 more)" in told
    told = act(admin_client, "hpcjob", "submit", make_job(script=""))
    assert told == "1 job skipped: The script is empty."


def test_data_is_deleted_and_lost_jobs_are_declared(
    admin_client: Client, cluster: HpcCluster, make_job: MakeJob, sent: Any, committed: Any
) -> None:
    ended = make_job(JobStatus.COMPLETED, cluster=cluster, attempt=1)
    lost = make_job(JobStatus.RUNNING, cluster=cluster, blocked_reason="no_evidence")
    with committed():
        assert "1 job to be cleared away" in act(admin_client, "hpcjob", "delete_data", ended)
        assert "1 job to be looked at again" in act(admin_client, "hpcjob", "look_again", lost)
        assert "1 job declared lost" in act(admin_client, "hpcjob", "declare_lost", lost)
    queue = f"cluster.{cluster.pk}"
    assert sent == [
        (publish.DELETE_JOB, ended.pk, queue),
        (publish.DRAIN_CLUSTER, cluster.pk, queue),
    ]
    lost.refresh_from_db()
    assert lost.status is JobStatus.ERROR


@pytest.mark.parametrize("status", JobStatus)
def test_a_jobs_page_offers_what_its_life_allows(
    admin_client: Client, make_job: MakeJob, status: JobStatus
) -> None:
    job = make_job(status)
    page = admin_client.get(url("hpcjob", "change", job.pk)).content.decode()
    legal = lifecycle.legal_events(status)
    for name, verb in VERBS.items():
        assert (f'name="_hpc_{name}"' in page) == (verb.event in legal)


def test_a_blocked_jobs_page_offers_to_look_again(
    admin_client: Client, cluster: HpcCluster, make_job: MakeJob, sent: Any, committed: Any
) -> None:
    job = make_job(JobStatus.PENDING, cluster=cluster)
    jobs.block(job.pk, "limits", "full", jobs.in_future(600))
    page = url("hpcjob", "change", job.pk)
    assert 'name="_hpc_look_again"' in admin_client.get(page).content.decode()
    with committed():
        response = admin_client.post(page, {**JOB_FORM, "_hpc_look_again": "1"}, follow=True)
    assert "1 job to be looked at again" in response.content.decode()
    job.refresh_from_db()
    assert (job.blocked_reason, job.not_before) == ("", None)
    assert sent == [(publish.DRAIN_CLUSTER, cluster.pk, f"cluster.{cluster.pk}")]


def test_when_the_cluster_last_confirmed_a_job_is_shown(
    admin_client: Client, cluster: HpcCluster, lease: links.Lease, make_job: MakeJob
) -> None:
    job = make_job(JobStatus.RUNNING, cluster=cluster)
    pages = (url("hpcjob", "changelist"), url("hpcjob", "change", job.pk))
    for page in pages:
        text = admin_client.get(page).content.decode()
        assert "last confirmed" in text.lower()
        assert "never" in text
    links.note_confirmed(cluster.pk, lease.epoch)
    for page in pages:
        assert "never" not in admin_client.get(page).content.decode()


def test_a_jobs_history_names_its_statuses(admin_client: Client, make_job: MakeJob) -> None:
    job = make_job(JobStatus.SUBMITTED)
    jobs.apply(job.pk, lifecycle.Event.EXCEED_WALL_TIME, source="cluster")
    for page in (url("hpcjob", "change", job.pk), url("jobevent", "changelist")):
        text = admin_client.get(page).content.decode()
        assert "Wall time exceeded" in text
        assert ">401<" not in text


def test_a_button_on_a_jobs_page_does_it(admin_client: Client, make_job: MakeJob) -> None:
    job = make_job(JobStatus.PENDING)
    response = admin_client.post(
        url("hpcjob", "change", job.pk), {**JOB_FORM, "_hpc_cancel": "Cancel"}, follow=True
    )
    assert "1 job to be cancelled" in response.content.decode()
    job.refresh_from_db()
    assert job.status is JobStatus.CANCELLED
    admin_client.post(url("hpcjob", "change", job.pk), {**JOB_FORM, "_hpc_submit": "Submit"})
    job.refresh_from_db()
    assert job.status is JobStatus.CANCELLED


def test_only_rows_that_stand_for_nothing_are_deleted(
    admin_client: Client, make_job: MakeJob
) -> None:
    for status in JobStatus:
        job = make_job(status)
        job.events.create(event="submit", status_before=0, status_after=status.value, source="user")
        response = admin_client.post(url("hpcjob", "delete", job.pk), {"post": "yes"})
        is_gone = status in (JobStatus.DRAFT, JobStatus.DELETED)
        assert response.status_code == (302 if is_gone else 403)
        assert HpcJob.objects.filter(pk=job.pk).exists() != is_gone


RECORDS = ["clusterlink", "worker", "jobevent", "filetransfer", "websockettoken", "hostkey",
           "loginattempt", "procedure", "step"]  # fmt: skip


@pytest.mark.parametrize("model", RECORDS)
def test_what_services_write_is_read_only(
    admin_client: Client, model: str, cluster: HpcCluster
) -> None:
    assert admin_client.get(url(model, "add")).status_code == 403
    if model == "clusterlink":
        page = url(model, "change", cluster.pk)
        assert admin_client.post(page, {"wanted": ""}).status_code == 403
        assert (
            admin_client.post(url(model, "delete", cluster.pk), {"post": "yes"}).status_code == 403
        )


def test_actions_need_their_permission(
    client: Client, cluster: HpcCluster, make_job: MakeJob
) -> None:
    looker = User.objects.create_user("looker", is_staff=True)
    names = ("view_hpcjob", "view_hpccluster", "change_hpcjob")
    looker.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(looker)
    job = make_job(JobStatus.PENDING, cluster=cluster)
    act(client, "hpcjob", "cancel", job)
    act(client, "hpccluster", "disconnect", cluster)
    client.post(url("hpcjob", "change", job.pk), {**JOB_FORM, "_hpc_cancel": "Cancel"})
    job.refresh_from_db()
    assert job.status is JobStatus.PENDING
    assert ClusterLink.objects.get().wanted
    looker.user_permissions.add(Permission.objects.get(codename="cancel_hpcjob"))
    act(client, "hpcjob", "cancel", job)
    job.refresh_from_db()
    assert job.status is JobStatus.CANCELLED


def test_a_job_that_waits_says_for_what(
    admin_client: Client, cluster: HpcCluster, make_job: MakeJob
) -> None:
    job = make_job(JobStatus.PENDING, cluster=cluster)
    page = admin_client.get(url("hpcjob", "now", job.pk)).content.decode()
    assert "is not connected (No worker)" in page
    assert url("hpccluster", "change", cluster.pk) in page
    assert 'data-refresh-s="1.5"' in page
    ClusterLink.objects.update(state="blocked", blocked_reason="x", blocked_detail="Mend <it>.")
    page = admin_client.get(url("hpcjob", "change", job.pk)).content.decode()
    assert "is not connected (Blocked)" in page
    assert "Mend &lt;it&gt;." in page
    unplaced = admin_client.get(url("hpcjob", "now", make_job(JobStatus.PENDING).pk))
    assert "waits for a cluster that is up" in unplaced.content.decode()
    ended = admin_client.get(url("hpcjob", "now", make_job(JobStatus.COMPLETED).pk))
    assert "data-refresh-s" not in ended.content.decode()


def test_who_may_only_look_at_a_job_sees_no_buttons(
    client: Client, cluster: HpcCluster, make_job: MakeJob
) -> None:
    job = make_job(JobStatus.PENDING, cluster=cluster)
    client.force_login(user_with("view_hpcjob", "cancel_hpcjob"))
    ClusterLink.objects.update(state="blocked", blocked_detail="of the cluster's operators")
    for page in (url("hpcjob", "change", job.pk), url("hpcjob", "now", job.pk)):
        text = client.get(page).content.decode()
        assert "is not connected" in text
        assert "_hpc_" not in text
        assert "operators" not in text
    client.force_login(user_with("view_hpccluster"))
    assert client.get(url("hpcjob", "now", job.pk)).status_code == 403


def test_the_admin_is_for_those_who_logged_in(client: Client, db: None) -> None:
    assert client.get(url("hpcjob", "changelist")).status_code == 302


def test_a_list_of_many_needs_few_queries(
    admin_client: Client, cluster: HpcCluster, make_job: MakeJob, django_assert_max_num_queries: Any
) -> None:
    for _ in range(30):
        make_job(JobStatus.RUNNING, cluster=cluster)
    Worker.objects.create(name="w", host="h", pid=1)
    with django_assert_max_num_queries(12):
        admin_client.get(url("hpcjob", "changelist"))
