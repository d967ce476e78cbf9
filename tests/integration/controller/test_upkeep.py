"""The global upkeep: one worker at a time, and what it clears away."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from controller.models import FileTransfer, HpcCluster, UpkeepLease, WebsocketToken
from controller.models.transfer import Direction, TransferState
from controller.services import upkeep

pytestmark = pytest.mark.django_db


def test_one_worker_has_it_until_its_lease_ends() -> None:
    assert upkeep.run("a")
    assert not upkeep.run("b")
    assert upkeep.run("a")
    UpkeepLease.objects.update(expires_at=Now() - timedelta(seconds=1))
    assert upkeep.run("b")
    assert not upkeep.run("a")


def test_tokens_go_once_they_are_used_or_old(cluster: HpcCluster) -> None:
    used = WebsocketToken.objects.create(cluster=cluster, used=True)
    old = WebsocketToken.objects.create(cluster=cluster)
    WebsocketToken.objects.filter(pk=old.pk).update(timestamp=Now() - timedelta(seconds=61))
    fresh = WebsocketToken.objects.create(cluster=cluster)
    upkeep.run("a")
    left = WebsocketToken.objects.filter(pk__in=[used.pk, old.pk, fresh.pk])
    assert [token.pk for token in left] == [fresh.pk]


def test_silent_transfers_fail_with_a_sentence(cluster: HpcCluster) -> None:
    silent, live, done = (
        FileTransfer.objects.create(
            cluster=cluster, direction=Direction.DOWNLOAD, path="out", state=state
        )
        for state in (TransferState.RUNNING, TransferState.RUNNING, TransferState.COMPLETED)
    )
    for transfer in (silent, done):
        FileTransfer.objects.filter(pk=transfer.pk).update(changed_at=Now() - timedelta(seconds=61))
    upkeep.run("a")
    for transfer in (silent, live, done):
        transfer.refresh_from_db()
    assert (live.state, done.state) == (TransferState.RUNNING, TransferState.COMPLETED)
    assert silent.state == TransferState.FAILED
    assert silent.finished_at is not None
    assert "worker that carried it is gone" in silent.failure
