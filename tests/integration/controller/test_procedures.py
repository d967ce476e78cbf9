"""Procedures: asked for once, claimed by one, told in steps, ended whatever happens."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import F

from controller.models import ClusterLink, HpcCluster, Kind, Procedure, ProcedureState, Step
from controller.services import clusters, procedures


def age(seconds: float) -> None:
    """Let all that happened lie further back."""
    back = timedelta(seconds=seconds)
    Procedure.objects.update(requested_at=F("requested_at") - back)
    Procedure.objects.exclude(started_at=None).update(started_at=F("started_at") - back)
    Step.objects.update(at=F("at") - back)


def test_from_the_request_to_the_end(cluster: HpcCluster) -> None:
    asked = procedures.request(cluster, Kind.TEST)
    assert procedures.request(cluster, Kind.TEST) == asked
    assert procedures.request(cluster, Kind.HOST_KEYS) != asked
    claimed = procedures.claim(asked.pk, "worker 1")
    assert claimed is not None
    assert (claimed.state, claimed.worker) == (ProcedureState.RUNNING, "worker 1")
    assert procedures.claim(asked.pk, "worker 2") is None
    procedures.note(asked.pk, "log in", "done", 0.25, "as ada\0")
    procedures.note(asked.pk, "home", "failed", -1.0, "x" * 5000)
    procedures.finish(asked.pk, "disk_full", "Make room.")
    procedures.finish(asked.pk)  # twice, or late
    procedures.note(asked.pk, "late", "done", 0.0, "")
    asked.refresh_from_db()
    assert (asked.state, asked.reason, asked.detail) == ("failed", "disk_full", "Make room.")
    assert asked.started_at is not None and asked.finished_at is not None
    first, second = asked.steps.all()
    assert (first.name, first.outcome, first.took_s) == ("log in", "done", 0.25)
    assert (first.detail, second.took_s, len(second.detail)) == ("as ada\ufffd", 0.0, 4000)
    assert procedures.request(cluster, Kind.TEST) != asked


def test_what_waits_for_a_cluster_is_claimed_by_kind(cluster: HpcCluster) -> None:
    assert procedures.claim_for(cluster.pk, Kind.BOOTSTRAP, "w") is None
    asked = procedures.request(cluster, Kind.BOOTSTRAP)
    assert procedures.claim_for(cluster.pk, Kind.BOOTSTRAP, "w") == asked
    assert procedures.claim_for(cluster.pk, Kind.BOOTSTRAP, "w") is None
    assert procedures.finish_running(cluster.pk, Kind.BOOTSTRAP)
    assert not procedures.finish_running(cluster.pk, Kind.BOOTSTRAP)


def test_a_bootstrap_of_its_own_accord_takes_what_was_asked_for_or_left_behind(
    cluster: HpcCluster,
) -> None:
    asked = procedures.request(cluster, Kind.BOOTSTRAP)
    assert procedures.begin(cluster.pk, Kind.BOOTSTRAP, "first") == asked
    second = procedures.begin(cluster.pk, Kind.BOOTSTRAP, "second")
    asked.refresh_from_db()
    assert (asked.state, asked.reason) == (ProcedureState.FAILED, "superseded")
    assert (second.state, second.worker) == (ProcedureState.RUNNING, "second")
    procedures.note(asked.pk, "of the first", "done", 1.0, "")
    assert not Step.objects.exists()


def test_a_procedure_whose_worker_is_gone_is_ended(cluster: HpcCluster) -> None:
    asked = procedures.request(cluster, Kind.TEST)
    procedures.claim(asked.pk, "w")
    age(procedures.SILENCE_S + 1)
    procedures.note(asked.pk, "slow", "done", 600.0, "")
    assert procedures.expire() == 0
    age(procedures.SILENCE_S + 1)
    assert procedures.expire() == 1
    asked.refresh_from_db()
    assert (asked.reason, asked.detail) == ("worker_gone", procedures.WORKER_GONE_DETAIL)


def test_a_request_whose_nudge_was_lost_is_found(cluster: HpcCluster) -> None:
    kinds = (Kind.TEST, Kind.HOST_KEYS)
    asked = [procedures.request(cluster, kind) for kind in kinds]
    procedures.request(cluster, Kind.BOOTSTRAP)
    assert procedures.waiting(kinds, 5) == []
    age(6)
    assert procedures.waiting(kinds, 5) == [(one.pk, cluster.pk, one.kind) for one in asked]
    procedures.claim(asked[0].pk, "w")
    assert [found[0] for found in procedures.waiting(kinds, 5)] == [asked[1].pk]


def test_a_bootstrap_waits_for_as_long_as_its_request_stands(cluster: HpcCluster) -> None:
    asked = clusters.bootstrap(cluster)
    age(86400)
    assert procedures.expire() == 0
    ClusterLink.objects.update(bootstrap_requested_at=None)
    assert procedures.expire() == 1
    asked.refresh_from_db()
    assert asked.reason == "withdrawn"


def test_the_newest_are_kept_for_people(cluster: HpcCluster) -> None:
    first = procedures.request(cluster, Kind.HOST_KEYS)
    made = [procedures.begin(cluster.pk, Kind.BOOTSTRAP, "w") for _ in range(25)]
    procedures.expire()
    kept = set(Procedure.objects.values_list("pk", flat=True))
    assert kept == {first.pk} | {one.pk for one in made[-procedures.KEPT :]}
