"""The verbs of a cluster: register, connect, disconnect, bootstrap, adopt, remove."""

from __future__ import annotations

import posixpath
import re
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import ProtectedError
from django.db.models.functions import Now

from .. import conf, errors, publish
from ..models import Carrier, ClusterLink, HpcCluster, LinkState
from . import leases
from .moves import UNBLOCKED

UMASK = re.compile(r"0[0-7]{3}")
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")


def validate(cluster: HpcCluster) -> None:
    """Mend the host and the paths in place; raises Django's ValidationError by field."""
    problems: dict[str, str] = {}
    cluster.host_name = cluster.host_name.strip()
    for check in (_check_host, _check_client_path, _check_python, _check_umask, _check_labels):
        check(cluster, problems)
    if problems:
        raise ValidationError(problems)


def register(**fields: Any) -> HpcCluster:
    """A new cluster with these columns, checked in full; Invalid says what is wrong."""
    cluster = HpcCluster(**fields)
    try:
        cluster.full_clean()
    except ValidationError as error:
        raise errors.Invalid(f"Cluster {cluster.name!r}: {_sentence(error)}") from error
    with transaction.atomic():
        cluster.save()
        ensure_link(cluster)
    return cluster


def ensure_link(cluster: HpcCluster) -> ClusterLink:
    """The cluster's link row; it is made with the cluster."""
    return ClusterLink.objects.get_or_create(cluster=cluster)[0]


def connect(cluster: HpcCluster, force: bool = False) -> None:
    """Want a link: whatever holds it back is lifted. `force`: also see to the daemon anew."""
    with transaction.atomic():
        link = ClusterLink.objects.select_for_update().get(pk=ensure_link(cluster).pk)
        if link.blocked_reason == leases.COPY:
            raise errors.Invalid(
                f"Cluster {cluster.name} belongs to another instance, this database is a copy:"
                f" take it over with `hpc adopt {cluster.name}`, or leave it alone."
            )
        columns: dict[str, Any] = {"wanted": True, "failures": 0, **UNBLOCKED}
        if link.state == LinkState.BLOCKED:
            columns["state"] = LinkState.DOWN
        if force:
            columns["bootstrap_requested_at"] = Now()
        ClusterLink.objects.filter(pk=cluster.pk).update(**columns)
        publish.connect(cluster.pk)


def disconnect(cluster: HpcCluster) -> None:
    """Want no link, nor a bootstrap; its holder closes it. Jobs on the cluster go on."""
    with transaction.atomic():
        ClusterLink.objects.filter(pk=ensure_link(cluster).pk).update(
            wanted=False, bootstrap_requested_at=None
        )
        publish.disconnect(cluster.pk)


def bootstrap(cluster: HpcCluster) -> None:
    """Have the daemon started if none answers; a worker does it."""
    with transaction.atomic():
        ensure_link(cluster)
        request_bootstrap(cluster.pk)
        publish.bootstrap(cluster.pk)


def request_bootstrap(cluster_id: int) -> None:
    """Ask the holder of the link to see to the daemon; a link parked by a refusal is tried."""
    with transaction.atomic():
        rows = ClusterLink.objects.filter(pk=cluster_id)
        rows.update(bootstrap_requested_at=Now())
        parked = rows.filter(state=LinkState.BLOCKED).exclude(blocked_reason=leases.COPY)
        parked.update(state=LinkState.DOWN, **UNBLOCKED)


def adopt(cluster: HpcCluster) -> None:
    """Make the cluster this instance's own, with a state directory and a daemon of its own.

    What the other instance has running there stays its own.
    """
    instance_id = conf.get().instance_id
    with transaction.atomic():
        link = ClusterLink.objects.select_for_update().get(pk=ensure_link(cluster).pk)
        if link.instance_id in ("", instance_id):
            raise errors.Invalid(f"Cluster {cluster.name} is this instance's own already.")
        ClusterLink.objects.filter(pk=link.pk).update(
            instance_id=instance_id,
            holder="",
            expires_at=None,
            epoch=link.epoch + 1,
            outbox_id="",
            daemon_host="",
            daemon_pid=None,
            state=LinkState.DOWN,
            **UNBLOCKED,
        )
        if link.wanted:
            publish.connect(cluster.pk)


def remove(cluster: HpcCluster) -> None:
    """Forget a cluster that has no jobs and no link."""
    link = ClusterLink.objects.filter(pk=cluster.pk).first()
    if link is not None and (link.wanted or link.holder):
        raise errors.Invalid(
            f"Cluster {cluster.name} is linked: disconnect it first (hpc cluster disconnect"
            f" {cluster.name}), and wait until its worker has let go."
        )
    try:
        cluster.delete()
    except ProtectedError as error:
        raise errors.Invalid(
            f"Cluster {cluster.name} has {len(error.protected_objects)} jobs: their rows keep it."
        ) from error


def _check_host(cluster: HpcCluster, problems: dict[str, str]) -> None:
    if cluster.carrier != Carrier.LOCAL:
        return
    if not conf.get().allow_local_carrier:
        problems["carrier"] = (
            "The local carrier runs code as the worker's own user: set HPC_ALLOW_LOCAL_CARRIER"
            " to allow it."
        )
    elif cluster.host_name not in LOCAL_HOSTS:
        problems["host_name"] = (
            f"The local carrier reaches the worker's own machine only, not"
            f" {cluster.host_name!r}: the host must be localhost."
        )


def _check_client_path(cluster: HpcCluster, problems: dict[str, str]) -> None:
    path = cluster.client_path.strip()
    if path.startswith("~"):
        problems["client_path"] = f"{path!r}: write the home directory out; ~ is not understood."
    elif not path.startswith("/"):
        problems["client_path"] = f"{path!r} is relative: it must be an absolute path."
    elif CONTROL_CHARACTERS.search(path):
        problems["client_path"] = "The path holds a line end or another control character."
    else:
        path = posixpath.normpath(path)
        if posixpath.basename(path) == "client.py":
            path = posixpath.dirname(path)
        cluster.client_path = "/" + path.lstrip("/")
        if cluster.client_path == "/":
            problems["client_path"] = "The client can't live in the root directory."


def _check_python(cluster: HpcCluster, problems: dict[str, str]) -> None:
    cluster.python = cluster.python.strip()
    if CONTROL_CHARACTERS.search(cluster.python):
        problems["python"] = "The name holds a line end or another control character."
    if "\0" in cluster.setup_commands:
        problems["setup_commands"] = "The commands hold a NUL character."
    cluster.setup_commands = cluster.setup_commands.replace("\r\n", "\n")


def _check_umask(cluster: HpcCluster, problems: dict[str, str]) -> None:
    if not UMASK.fullmatch(cluster.umask):
        return  # the field says so itself
    umask = int(cluster.umask, 8)
    if not umask & 0o002:
        problems["umask"] = f"{cluster.umask} would let anybody write: use 0077 or 0027."
    elif umask & 0o700:
        problems["umask"] = (
            f"{cluster.umask} would bar the account from its own jobs' directories: use 0077 or"
            " 0027."
        )


def _check_labels(cluster: HpcCluster, problems: dict[str, str]) -> None:
    cluster.labels = {} if cluster.labels is None else cluster.labels
    if not isinstance(cluster.labels, dict):
        problems["labels"] = 'Labels must be an object such as {"site": "north"}.'


def _sentence(error: ValidationError) -> str:
    if not hasattr(error, "error_dict"):
        return " ".join(error.messages)
    return " ".join(
        f"{name}: {message}" if name != "__all__" else message
        for name, messages in error.message_dict.items()
        for message in messages
    )
