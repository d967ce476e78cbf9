"""The links of this process, for operations; set by the bootstep."""

from __future__ import annotations

from ..links.keeper import Keeper
from ..links.link import HeldLink

_keepers: list[Keeper] = []


def set_keeper(keeper: Keeper | None) -> None:
    """Make `keeper` the one of this process, or none."""
    _keepers[:] = [keeper] if keeper is not None else []


def keeper() -> Keeper | None:
    """The keeper of this process, if it has one."""
    return _keepers[0] if _keepers else None


def link_of(cluster_id: int) -> HeldLink | None:
    """The link to use now, or None: not held here, not up, or mute."""
    own = keeper()
    link = own.link_of(cluster_id) if own is not None else None
    return link if link is not None and not link.is_mute else None
