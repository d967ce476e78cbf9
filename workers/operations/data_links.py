"""Greeted data connections to a cluster's client, for questions about files and for transfers.

Over SSH all of a cluster share connections (data_carriers.py); a link that ended in order is kept
for who comes next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from cluster_client.protocol import messages
from controller import conf
from controller.models import Carrier, HpcCluster

from ..links import bridge, carriers, clock, data, errors
from . import bootstrap, data_carriers, data_places, reach
from .plans import Plan

T = TypeVar("T")

LINK_AGE_S = 60.0
"""The client on its other end has read its settings as they were at its start."""

connections = data_carriers.DataCarriers(
    data_places.read, data_places.make, lambda: conf.get().data_idle_s
)


def close() -> None:
    """Log out of all clusters: the worker stops."""
    connections.close()


def use(
    cluster: HpcCluster,
    talk: Callable[[data.DataLink], T],
    ends_at: float,
    *,
    is_transfer: bool = False,
) -> T:
    """What `talk` returns; a link that dies under it is replaced once, and `talk` called again.

    Raises LinkError, HpcError, and what `talk` raises: after an error that is no LinkError it is
    not called again.
    """

    def over(lent: data_carriers.Lent[Plan]) -> T:
        with _linked(lent, ends_at) as link:
            return talk(link)

    if reach.carrier_kind(cluster) == Carrier.SSH:
        return connections.ask(cluster.pk, over, ends_at, is_transfer=is_transfer)
    plan = bootstrap.plan(cluster.pk)
    return over(data_carriers.Lent(reach.carrier(plan, reach.FILES, reach.directly), plan))


@contextmanager
def _linked(lent: data_carriers.Lent[Plan], ends_at: float) -> Iterator[data.DataLink]:
    link = _taken(lent, ends_at) or _opened(lent.carrier, lent.plan, ends_at)
    try:
        yield link
    finally:
        if link.is_free:
            lent.keep(link)
        else:
            link.close()


def _taken(lent: data_carriers.Lent[Plan], ends_at: float) -> data.DataLink | None:
    """The link that an earlier question has left, if there is a young one."""
    link = lent.spare
    if not isinstance(link, data.DataLink):
        return None
    if clock.now() - link.opened_at > LINK_AGE_S:
        link.close()
        return None
    link.extend(ends_at)
    return link


def _opened(carrier: carriers.Carrier, plan: Plan, ends_at: float) -> data.DataLink:
    channel, marker = bridge.open_client(
        carrier,
        plan.installation,
        ("files", plan.key),
        min(conf.get().connect_timeout_s, max(0.1, ends_at - clock.now())),
    )
    try:
        if marker.status != "connected":
            raise errors.CannotConnect(marker.status, marker.detail or "The client refused.")
        hello = messages.Hello(
            versions=messages.VERSIONS,
            instance_id=conf.get().instance_id,
            cluster_id=plan.cluster_id,
            purpose=messages.FILES,
        )
        return data.DataLink(channel, hello, ends_at)
    except BaseException:
        channel.close()
        raise
