"""Nudges about one cluster's link. The keeper sees to each within seconds also without them."""

from __future__ import annotations

from celery import shared_task

from controller import publish

from ..operations import connection_test, host_keys, wishes


@shared_task(name=publish.DRAIN_CLUSTER, ignore_result=True, acks_late=False)
def drain_cluster(cluster_id: int) -> None:
    """Many jobs of the cluster wait to be submitted."""
    wishes.drain(cluster_id)


@shared_task(name=publish.CONNECT, ignore_result=True, acks_late=False)
def connect(cluster_id: int) -> None:
    """A link to the cluster is wanted."""
    wishes.look()


@shared_task(name=publish.DISCONNECT, ignore_result=True, acks_late=False)
def disconnect(cluster_id: int) -> None:
    """A link to the cluster is wanted no more."""
    wishes.look()


@shared_task(name=publish.BOOTSTRAP, ignore_result=True, acks_late=False)
def bootstrap(cluster_id: int) -> None:
    """The cluster's daemon is to be started."""
    wishes.bootstrap(cluster_id)


@shared_task(name=publish.FETCH_HOST_KEYS, ignore_result=True, acks_late=False)
def fetch_host_keys(cluster_id: int) -> None:
    """Someone wants to see the keys of the cluster's hosts."""
    host_keys.fetch(cluster_id)


@shared_task(name=publish.TEST_CONNECTION, ignore_result=True, acks_late=False)
def test_connection(cluster_id: int) -> None:
    """The way to the cluster is to be tested."""
    connection_test.test(cluster_id)
