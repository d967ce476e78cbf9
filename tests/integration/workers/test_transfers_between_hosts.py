"""Files through the Redis list, with a real worker: as through the socket, and no secret told."""

from __future__ import annotations

import os
import signal

import pytest
from pytest_django import Settings

from controller import errors
from controller.models.transfer import TransferState
from controller.services import files
from tests import stack as stacks

from .transfer_place import GONE_LIMIT_S, MIB, Place

STALL_S = 6.0


def test_files_go_to_and_fro_between_hosts(stack: stacks.Stack, settings: Settings) -> None:
    settings.HPC_FILE_RELAY_URL = stack.redis.url
    settings.HPC_TRANSFER_STALL_S = STALL_S
    own = {"HPC_FILE_RELAY_URL": stack.redis.url, "HPC_TRANSFER_STALL_S": str(STALL_S)}
    place = Place(stack, stack.add_cluster())
    worker = stack.start_worker(own, queues="files")
    content = os.urandom(33 * MIB + 5)

    stored = files.upload(place.job, "in", len(content), [content])
    assert (place.directory / "in").read_bytes() == content
    download = files.download(place.job, "in")
    assert b"".join(download) == content
    assert download.sha256 == stored.sha256
    place.wait_state(TransferState.COMPLETED)
    with pytest.raises(errors.NotFound, match="none"):
        files.download(place.job, "none")

    stalled = place.stalled()
    stalled.close()
    stack.wait(lambda: not place.clients(), "the reader to end", GONE_LIMIT_S)
    place.wait_state(TransferState.CANCELLED)

    broken = place.stalled()
    worker.send(signal.SIGKILL)
    with pytest.raises((errors.Timeout, errors.TransferBroken)):
        list(broken)
    assert place.row().state == TransferState.FAILED
    assert stack.redis.password not in stack.log_of(1).read_text()
