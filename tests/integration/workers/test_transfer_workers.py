"""What becomes of transfers when their worker is full, stops or dies."""

from __future__ import annotations

import signal

import pytest

from controller import errors
from controller.models import FileTransfer
from controller.services import files
from tests import stack as stacks

from .transfer_place import BIG, GONE_LIMIT_S, Place


def test_a_worker_carries_so_many_answers_questions_and_tells_who_waits_when_it_stops(
    stack: stacks.Stack,
) -> None:
    place = Place(stack, stack.add_cluster())
    worker = stack.start_worker({"HPC_FILES_THREADS": "10"}, queues="files")
    carried = [place.stalled(), place.stalled()]
    with pytest.raises(errors.Busy, match="HPC_FILES_THREADS") as caught:
        place.stalled()
    assert caught.value.retry_after_s > 0
    assert files.stat(place.job, "big")["size_bytes"] == BIG
    carried[0].close()
    stack.wait(lambda: len(place.clients()) < 2, "a place to be free")
    carried[0] = place.stalled()
    stack.stop_worker(worker, 20.0)
    for download in carried:
        with pytest.raises(errors.TransferBroken):
            list(download)
    states = FileTransfer.objects.filter(cluster=place.cluster).values_list("state", flat=True)
    assert sorted(states) == ["cancelled", "failed", "failed", "failed"]
    assert not place.clients()


def test_a_worker_that_dies_breaks_what_it_carries_and_its_client_ends(
    stack: stacks.Stack,
) -> None:
    place = Place(stack, stack.add_cluster())
    worker = stack.start_worker(queues="files")
    download = place.stalled()
    worker.send(signal.SIGKILL)
    with pytest.raises(errors.TransferBroken):
        list(download)
    stack.wait(lambda: not place.clients(), "the reader to end", GONE_LIMIT_S)
