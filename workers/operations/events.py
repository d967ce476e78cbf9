"""What a client tells by itself, handed to the services."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from cluster_client.protocol import messages
from controller import errors as controller_errors
from controller.services import links as link_services

from ..links import errors
from . import faults


def receive(cluster_id: int, epoch: int, outbox_id: str, batch: Sequence[messages.Event]) -> int:
    """Commit a batch; returns the cursor to acknowledge. Raises LinkClosed to end the link."""
    told = [
        link_services.ClusterEvent(
            tag=event.tag,
            seq=event.seq,
            run=event.run,
            kind=event.kind,
            at=event.at,
            data=event.data,
        )
        for event in batch
    ]
    faults.reach("worker.events.1")
    try:
        seq = link_services.receive(cluster_id, epoch, outbox_id, told)
    except (controller_errors.Invalid, controller_errors.LeaseLost) as problem:
        raise errors.LinkClosed(str(problem)) from problem
    faults.reach("worker.events.2")
    return seq


def reconcile(cluster_id: int, epoch: int, compared: messages.Compared) -> list[str]:
    """Bring the server up to the client; returns the tags to cancel there."""
    states = [link_services.ClusterJobState(**dataclasses.asdict(state)) for state in compared.jobs]
    try:
        return link_services.reconcile(cluster_id, epoch, states, compared.unknown, compared.extra)
    except controller_errors.LeaseLost as problem:
        raise errors.LinkClosed(str(problem)) from problem


def note_asked_again(cluster_id: int, epoch: int, compared: messages.Compared) -> None:
    """Record what the client knows of jobs that it was asked about again."""
    known = [state.tag for state in compared.jobs]
    try:
        link_services.note_asked_again(cluster_id, epoch, known, compared.unknown)
    except controller_errors.LeaseLost as problem:
        raise errors.LinkClosed(str(problem)) from problem
