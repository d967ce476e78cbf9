"""Does what nudges should have done: whatever of a cluster is due, over the link held here.

The holder of a link sweeps its cluster by direct call, without the broker. Each operation looks
at the row again, so a sweep beside a nudge changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from controller import conf, queries

from ..links.link import HeldLink
from . import cancellation, comparison, deletion, submission

logger = logging.getLogger(__name__)

LIMIT = 100


def sweep(link: HeldLink) -> None:
    """Sweep the link's cluster once; a failing part leaves the others their turn."""
    cluster_id = link.cluster_id
    parts: tuple[tuple[str, Callable[[], object]], ...] = (
        ("cancelling", lambda: _each(link, queries.stale_cancelling, cancellation.cancel_over)),
        ("submitting", lambda: submission.ask_again(link)),
        ("pending", lambda: submission.drain(link, conf.get().sweep_interval_s)),
        ("lost sight of", lambda: comparison.ask_again(link)),
        ("deleting", lambda: _each(link, queries.stale_deleting, deletion.delete_over)),
    )
    for name, run in parts:
        if link.is_mute:
            return
        try:
            run()
        except Exception:
            logger.exception("sweep.part_failed", extra={"cluster_id": cluster_id, "part": name})


def _each(
    link: HeldLink,
    due: Callable[[int, int], list[int]],
    carry_out: Callable[[HeldLink, int], None],
) -> None:
    for job_id in due(link.cluster_id, LIMIT):
        if link.is_mute:
            return
        carry_out(link, job_id)
