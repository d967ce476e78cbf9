"""What belongs to no cluster and must be done by somebody: one worker at a time, by a lease row."""

from __future__ import annotations

import logging

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Now

from ..models import UpkeepLease, WebsocketToken
from ..queries import older_than
from . import leases, logins, placement, procedures, transfers
from .moves import in_future

logger = logging.getLogger(__name__)

NAME = "upkeep"
LEASE_S = 60.0


def run(holder: str) -> bool:
    """Do all of it if nobody else has the lease; says whether it was done here.

    Each part may be done twice without harm: the lease saves work, it guards nothing.
    """
    if not take(holder):
        return False
    placement.place_waiting()
    leases.forget_silent_workers()
    expire_tokens()
    transfers.expire()
    procedures.expire()
    logins.forget_old()
    return True


def take(holder: str) -> bool:
    """Take the lease, or renew one's own."""
    is_free = Q(holder=holder) | Q(expires_at=None) | Q(expires_at__lte=Now())
    rows = UpkeepLease.objects.filter(is_free, name=NAME)
    if rows.update(holder=holder, expires_at=in_future(LEASE_S)):
        return True
    if UpkeepLease.objects.filter(name=NAME).exists():
        return False
    try:
        with transaction.atomic():
            UpkeepLease.objects.create(name=NAME)
    except IntegrityError:  # another worker was as quick: it is free for one of the two
        logger.debug("upkeep lease made by another")
    return bool(rows.update(holder=holder, expires_at=in_future(LEASE_S)))


def expire_tokens() -> int:
    """Forget tokens that were used, or whose time has passed; returns how many."""
    is_over = Q(used=True) | older_than("timestamp", transfers.TOKEN_LIFE_S)
    return WebsocketToken.objects.filter(is_over).delete()[0]
