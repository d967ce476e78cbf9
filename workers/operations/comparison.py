"""Asks the client again about jobs that their cluster tells nothing of."""

from __future__ import annotations

import logging

from cluster_client.protocol import messages
from controller import conf, queries

from ..links import errors
from ..links.link import HeldLink
from . import events

logger = logging.getLogger(__name__)

LIMIT = 100
"""The client may have to look each up in its scheduler."""


def ask_again(link: HeldLink) -> None:
    """Compare the jobs that are due for it; what the client then knows comes as events."""
    tags = tuple(queries.lost_sight_of(link.cluster_id, LIMIT))
    if not tags or link.is_mute:
        return
    try:
        answer = link.request(messages.Compare(tags), conf.get().request_deadline_s)
        if isinstance(answer, messages.Compared):
            events.note_asked_again(link.cluster_id, link.epoch, answer)
        else:
            logger.warning("compare.refused", extra={"problem": str(answer)})
    except errors.LinkError as problem:
        logger.warning("compare.unanswered", extra={"problem": str(problem)})
