"""Does what nudges should have done: whatever of a cluster is due, over the link held here.

The holder of a link sweeps its cluster by direct call, without the broker. Each operation looks
at the row again, so a sweep beside a nudge changes nothing. A sweep takes a few seconds: where
more is left, the other clusters have their turn first. Cancels have threads of their own, so that
none waits behind anybody's submissions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from controller import queries

from ..links import clock
from ..links.link import HeldLink
from . import cancellation, comparison, deletion, submission

logger = logging.getLogger(__name__)

LIMIT = 100
SLICE_S = 3.0
"""About how long one part of a sweep may take, its last answer not counted."""


def sweep(link: HeldLink) -> bool:
    """Sweep the link's cluster for a while; says whether there is more to do at once.

    A failing part leaves the others their turn.
    """
    parts: tuple[tuple[str, Callable[[HeldLink], bool]], ...] = (
        ("submitting", _ask_again),
        ("pending", _drain),
        ("lost sight of", _compare),
        ("deleting", _delete),
    )
    if not queries.may_be_due(link.cluster_id):
        return False
    is_more = False
    for name, run in parts:
        is_more |= _is_more(link, name, run)
    return is_more


def cancel(link: HeldLink) -> None:
    """Send the cancels that are due, for a while."""
    ends_at = clock.now() + SLICE_S
    for job_id in queries.stale_cancelling(link.cluster_id, LIMIT):
        if link.is_mute or clock.now() >= ends_at:
            return
        cancellation.cancel_over(link, job_id)


def _is_more(link: HeldLink, name: str, run: Callable[[HeldLink], bool]) -> bool:
    if link.is_mute:
        return False
    try:
        return run(link)
    except Exception:
        logger.exception("sweep.part_failed", extra={"cluster_id": link.cluster_id, "part": name})
        return False


def _ask_again(link: HeldLink) -> bool:
    submission.ask_again(link, SLICE_S)
    return False


def _drain(link: HeldLink) -> bool:
    count = submission.drain(link, SLICE_S)
    return count > 0 and bool(queries.due_pending(link.cluster_id, 1))


def _compare(link: HeldLink) -> bool:
    comparison.ask_again(link)
    return False


def _delete(link: HeldLink) -> bool:
    ends_at = clock.now() + SLICE_S
    for job_id in queries.stale_deleting(link.cluster_id, LIMIT):
        if link.is_mute:
            return False
        if deletion.delete_over(link, job_id, SLICE_S) or clock.now() >= ends_at:
            return True
    return False
