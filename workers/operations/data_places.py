"""From a cluster's rows to its connection for files: what decides over it, and how it is made."""

from __future__ import annotations

from controller import errors as controller_errors
from controller.models import ClusterLink
from controller.services import host_keys

from ..links import ssh_carrier
from . import bootstrap, reach
from .data_carriers import Place
from .plans import Plan


def read(cluster_id: int) -> Place:
    """What a connection to the cluster depends on now. Raises NotFound."""
    link = ClusterLink.objects.select_related("cluster").filter(pk=cluster_id).first()
    if link is None:
        raise controller_errors.NotFound(f"There is no cluster {cluster_id} any more.")
    cluster = link.cluster
    facts = (
        link.login_changed_at,
        cluster.carrier,
        cluster.host_name,
        cluster.port,
        cluster.username,
        cluster.key,
        cluster.password,
        cluster.client_path,
        cluster.python,
        cluster.setup_commands,
        frozenset(pin.pk for pin in host_keys.pinned(cluster_id)),
    )
    return Place(facts, link.address)


def make(cluster_id: int) -> tuple[Plan, ssh_carrier.SshCarrier]:
    """The plan for a cluster that is reached by SSH, and a carrier that has not logged in yet.

    Raises NotFound, CannotConnect.
    """
    plan = bootstrap.plan(cluster_id)
    made = reach.carrier(plan, reach.FILES, reach.directly, is_control=False)
    if not isinstance(made, ssh_carrier.SshCarrier):
        raise controller_errors.Unavailable(f"Cluster {cluster_id} was just changed: ask again.")
    return plan, made
