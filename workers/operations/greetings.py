"""The greeting by which a holder of a lease makes itself known to a daemon."""

from __future__ import annotations

from cluster_client.protocol import messages
from controller import conf
from controller.models import ClusterLink
from controller.services import links


def hello(cluster_id: int, epoch: int) -> messages.Hello:
    """The greeting of this epoch, with the generation issued last and the cursor."""
    link = ClusterLink.objects.get(pk=cluster_id)
    return messages.Hello(
        versions=messages.VERSIONS,
        instance_id=conf.get().instance_id,
        cluster_id=cluster_id,
        epoch=epoch,
        generation=link.generation,
        outbox_id=link.outbox_id,
        cursor=links.cursor(cluster_id, link.outbox_id) if link.outbox_id else 0,
    )
