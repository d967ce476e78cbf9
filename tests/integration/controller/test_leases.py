"""One holder a link, by the database's clock."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from pytest_django import Settings

from controller import errors, queries, signals
from controller.models import ClusterLink, HpcCluster, LinkState, Worker
from controller.services import clusters, leases, links

from .conftest import WELCOME


def link(cluster: HpcCluster) -> ClusterLink:
    return ClusterLink.objects.get(pk=cluster.pk)


def expire(cluster: HpcCluster) -> None:
    ClusterLink.objects.filter(pk=cluster.pk).update(expires_at=Now() - timedelta(seconds=1))


def test_a_free_lease_is_taken_once_and_raises_the_epoch(cluster: HpcCluster) -> None:
    assert links.candidates(10) == [cluster.pk]
    first = links.take(cluster.pk, "a")
    assert first == links.Lease(cluster.pk, 1, 0)
    assert links.take(cluster.pk, "b") is None
    assert links.candidates(10) == []
    assert (link(cluster).holder, link(cluster).state) == ("a", LinkState.CONNECTING)


def test_an_expired_lease_goes_to_another_with_a_higher_epoch(cluster: HpcCluster) -> None:
    links.take(cluster.pk, "a")
    expire(cluster)
    assert links.candidates(10) == [cluster.pk]
    assert links.take(cluster.pk, "b") == links.Lease(cluster.pk, 2, 0)
    assert links.renew_all("a", [cluster.pk]) == set()
    assert links.renew_all("b", [cluster.pk]) == {cluster.pk}


def test_a_lease_lasts_as_long_as_the_setting_says(cluster: HpcCluster, settings: Settings) -> None:
    settings.HPC_LEASE_TTL_S = 100
    links.take(cluster.pk, "a")
    rows = ClusterLink.objects.filter(pk=cluster.pk)
    assert rows.filter(expires_at__gt=Now() + timedelta(seconds=95)).exists()
    assert rows.filter(expires_at__lt=Now() + timedelta(seconds=105)).exists()


def test_an_expired_lease_that_nobody_took_is_renewed(cluster: HpcCluster) -> None:
    links.take(cluster.pk, "a")
    expire(cluster)
    assert links.renew_all("a", [cluster.pk, 999]) == {cluster.pk}
    assert links.candidates(10) == []


def test_renewing_many_is_two_queries(cluster: HpcCluster, django_assert_num_queries: Any) -> None:
    ids = [cluster.pk]
    for number in range(5):
        other = clusters.register(name=f"c{number}", host_name="localhost", client_path="/c")
        ids.append(other.pk)
    for cluster_id in ids:
        links.take(cluster_id, "a")
    with django_assert_num_queries(2):
        assert links.renew_all("a", ids) == set(ids)


def test_only_the_holder_releases(cluster: HpcCluster) -> None:
    lease = links.take(cluster.pk, "a")
    assert lease is not None
    assert not links.release(cluster.pk, "b", lease.epoch)
    assert not links.release(cluster.pk, "a", lease.epoch - 1)
    assert links.release(cluster.pk, "a", lease.epoch)
    assert not links.release(cluster.pk, "a", lease.epoch)
    assert links.candidates(10) == [cluster.pk]


def test_what_is_not_wanted_or_not_due_is_no_candidate(cluster: HpcCluster) -> None:
    rows = ClusterLink.objects.filter(pk=cluster.pk)
    rows.update(not_before=Now() + timedelta(seconds=60))
    assert links.candidates(10) == []
    rows.update(not_before=Now() - timedelta(seconds=1))
    assert links.candidates(10) == [cluster.pk]
    rows.update(not_before=None, state=LinkState.BLOCKED)
    assert links.candidates(10) == []
    rows.update(wanted=False, state=LinkState.DOWN)
    assert links.candidates(10) == []


def test_a_bootstrap_asked_of_an_unwanted_link_makes_it_a_candidate(cluster: HpcCluster) -> None:
    clusters.disconnect(cluster)
    assert (links.candidates(10), links.share()) == ([], 0)
    clusters.bootstrap(cluster)
    assert (links.candidates(10), links.share()) == ([cluster.pk], 1)
    clusters.disconnect(cluster)
    assert (links.candidates(10), links.share()) == ([], 0)


def test_a_generation_is_raised_without_the_epoch(cluster: HpcCluster) -> None:
    lease = links.take(cluster.pk, "a")
    assert lease is not None
    assert not leases.raise_generation(cluster.pk, "b", lease.epoch, 7)
    assert not leases.raise_generation(cluster.pk, "a", lease.epoch, 2**62)
    assert leases.raise_generation(cluster.pk, "a", lease.epoch, 7)
    assert (link(cluster).generation, link(cluster).epoch) == (7, lease.epoch)
    assert leases.raise_generation(cluster.pk, "a", lease.epoch, 3)
    assert link(cluster).generation == 7


def test_a_copied_database_leaves_the_originals_clusters_alone(
    cluster: HpcCluster, settings: Settings
) -> None:
    lease = links.take(cluster.pk, "a")
    assert lease is not None
    links.record_up(cluster.pk, lease.epoch, WELCOME)
    links.release(cluster.pk, "a", lease.epoch)
    settings.HPC_INSTANCE_ID = "staging"
    assert links.take(cluster.pk, "b") is None
    found = link(cluster)
    assert (found.state, found.blocked_reason) == (LinkState.BLOCKED, "copy")
    assert "hpc adopt" in found.blocked_detail
    assert links.candidates(10) == []
    with pytest.raises(errors.Invalid, match="hpc adopt north"):
        clusters.connect(cluster)
    clusters.request_bootstrap(cluster.pk)
    assert links.candidates(10) == []
    clusters.adopt(cluster)
    assert links.candidates(10) == [cluster.pk]
    assert links.take(cluster.pk, "b") is not None
    with pytest.raises(errors.Invalid, match="own already"):
        clusters.adopt(cluster)


def test_a_copy_of_a_held_row_is_not_taken_over_when_it_expires(
    cluster: HpcCluster, settings: Settings
) -> None:
    lease = links.take(cluster.pk, "a")
    assert lease is not None
    links.next_generation(cluster.pk, "a", lease.epoch)
    settings.HPC_INSTANCE_ID = "staging"
    expire(cluster)
    assert links.take(cluster.pk, "b") is None
    assert link(cluster).blocked_reason == "copy"


def test_a_restored_database_goes_beyond_what_the_client_has_seen(cluster: HpcCluster) -> None:
    lease = links.take(cluster.pk, "a")
    assert lease is not None
    raised = links.raise_epoch(cluster.pk, "a", seen_epoch=50, seen_generation=7)
    assert raised == links.Lease(cluster.pk, 51, 7)
    assert links.next_generation(cluster.pk, "a", 51) == 8
    assert links.raise_epoch(cluster.pk, "b", 60, 7) is None
    expire(cluster)
    assert links.raise_epoch(cluster.pk, "a", 60, 7) is None


@pytest.mark.parametrize("seen", [(2**63, 0), (0, 2**62), (-1, 0)])
def test_an_impossible_epoch_is_not_believed(cluster: HpcCluster, seen: tuple[int, int]) -> None:
    links.take(cluster.pk, "a")
    assert links.raise_epoch(cluster.pk, "a", *seen) is None
    assert link(cluster).epoch == 1


def test_a_generation_is_issued_to_the_holder_alone(cluster: HpcCluster) -> None:
    lease = links.take(cluster.pk, "a")
    assert lease is not None
    clusters.request_bootstrap(cluster.pk)
    assert links.requested([cluster.pk]).bootstrap == {cluster.pk}
    with pytest.raises(errors.LeaseLost):
        links.next_generation(cluster.pk, "b", lease.epoch)
    assert links.next_generation(cluster.pk, "a", lease.epoch) == 1
    assert links.requested([cluster.pk]).bootstrap == frozenset()
    assert link(cluster).instance_id == "test"


def test_a_holder_learns_what_is_asked_of_it(cluster: HpcCluster) -> None:
    lease = links.take(cluster.pk, "a")
    assert lease is not None
    clusters.connect(cluster, force=True)
    assert links.requested([cluster.pk, 999]) == links.Requests(
        frozenset({cluster.pk}), frozenset({999})
    )
    links.clear_bootstrap_request(cluster.pk, lease.epoch - 1)
    assert links.requested([cluster.pk]).bootstrap
    links.clear_bootstrap_request(cluster.pk, lease.epoch)
    clusters.disconnect(cluster)
    assert links.requested([cluster.pk]) == links.Requests(frozenset(), frozenset({cluster.pk}))


def test_what_a_link_says_counts_only_from_its_holder(
    cluster: HpcCluster, lease: links.Lease
) -> None:
    stale = lease.epoch - 1
    assert not links.record_up(cluster.pk, stale, WELCOME)
    assert not links.record_down(cluster.pk, stale, "x")
    assert not links.record_blocked(cluster.pk, stale, "refused", "x")
    assert not links.note_confirmed(cluster.pk, stale)
    assert link(cluster).state == LinkState.UP
    assert links.note_confirmed(cluster.pk, lease.epoch)
    assert links.record_down(cluster.pk, lease.epoch, "cut\0off")
    assert (link(cluster).state, link(cluster).failures) == (LinkState.DOWN, 1)
    assert link(cluster).blocked_detail == "cut\ufffdoff"
    assert links.record_blocked(cluster.pk, lease.epoch, "full", "x", links.in_future(60))
    found = link(cluster)
    assert (found.state, found.blocked_reason, found.failures) == (LinkState.BLOCKED, "full", 2)
    assert found.not_before is not None
    assert links.record_up(cluster.pk, lease.epoch, WELCOME)
    assert (link(cluster).failures, link(cluster).blocked_reason) == (0, "")
    links.release(cluster.pk, "holder", lease.epoch)
    assert not links.record_up(cluster.pk, lease.epoch, WELCOME)
    assert not queries.is_connected(cluster)


def test_a_greeting_is_kept_cleaned_and_cut(cluster: HpcCluster, lease: links.Lease) -> None:
    hostile = {
        "host": "h" * 300,
        "pid": 2**40,
        "client_version": "1\0",
        "scheduler_version": "s" * 300,
        "last_death": "x" * 9000,
        "capabilities": {"resources": ["nodes"]},
        "outbox_id": "box",
        "first_seq": 1,
        "last_seq": 10**30,
        "something_new": object(),
    }
    assert links.record_up(cluster.pk, lease.epoch, hostile)
    found = link(cluster)
    assert (len(found.daemon_host), found.daemon_pid) == (250, 77)
    assert (found.client_version, len(found.scheduler_version)) == ("1\ufffd", 200)
    assert found.capabilities == {"resources": ["nodes"]}


def test_outsiders_hear_of_a_link_after_the_commit(
    cluster: HpcCluster, django_capture_on_commit_callbacks: Any
) -> None:
    heard: list[Any] = []

    def listen(sender: Any, **facts: Any) -> None:
        heard.append((facts["cluster"], facts["state"]))

    lease = links.take(cluster.pk, "a")
    assert lease is not None
    signals.link_changed.connect(listen)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            links.record_up(cluster.pk, lease.epoch, WELCOME)
            assert heard == []
    finally:
        signals.link_changed.disconnect(listen)
    assert heard == [(cluster, LinkState.UP)]


def test_links_are_shared_among_live_workers(cluster: HpcCluster) -> None:
    for number in range(4):
        other = clusters.register(name=f"c{number}", host_name="localhost", client_path="/c")
        clusters.connect(other)
    assert links.share() == 5
    links.heartbeat("a", "h", 1, False)
    assert links.share() == 5
    links.heartbeat("b", "h", 2, False)
    assert links.share() == 3
    links.heartbeat("c", "h", 3, True)
    assert links.share() == 3
    Worker.objects.filter(name="b").update(heartbeat_at=Now() - timedelta(seconds=11))
    assert links.share() == 5
    links.heartbeat("b", "h", 2, False)
    links.forget_worker("a")
    assert links.share() == 5


def test_workers_unheard_of_for_long_are_forgotten(db: None) -> None:
    links.heartbeat("a", "h", 1, False)
    links.heartbeat("b", "h", 2, False)
    Worker.objects.filter(name="b").update(heartbeat_at=Now() - timedelta(days=2))
    assert links.forget_silent_workers() == 1
    assert Worker.objects.get().name == "a"
