"""The verbs of a cluster: register, change, connect, disconnect, test, bootstrap, adopt, remove."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import ProtectedError
from django.db.models.functions import Now
from django.views.decorators.debug import sensitive_variables

from .. import conf, errors, publish, ssh_opener
from ..models import Carrier, ClusterLink, HpcCluster, Kind, LinkState, Procedure
from . import cluster_fields, credentials, host_keys, leases, logins, procedures
from .moves import UNBLOCKED

PLACE = frozenset({"host_name", "port", "username", "carrier"})
"""Where the logins go, and as whom."""
CREDENTIALS = frozenset({"key", "password"})
WHERE_IT_WAS: dict[str, Any] = {
    "address": "",
    "daemon_host": "",
    "outlives_login_on": "",
    "elsewhere_tries": 0,
    "moved_at": None,
}
"""What a link knows of a place; it holds at no other."""


def validate(cluster: HpcCluster) -> None:
    """Mend the host and the paths in place; raises Django's ValidationError by field."""
    problems = cluster_fields.check(cluster)
    if "carrier" not in problems:
        problems |= credentials.check(cluster)
    if problems:
        raise ValidationError(problems)


@sensitive_variables(*CREDENTIALS)
def register(*, key: str = "", password: str = "", **fields: Any) -> HpcCluster:
    """A new cluster with these columns, checked in full; Invalid says what is wrong."""
    cluster = HpcCluster(**fields)
    credentials.change(cluster, key, password)
    _check(cluster)
    with transaction.atomic():
        cluster.save()
        ensure_link(cluster)
    return cluster


@sensitive_variables(*CREDENTIALS)
def change(
    cluster: HpcCluster, *, key: str | None = None, password: str | None = None, **fields: Any
) -> set[str]:
    """Give a registered cluster these columns, checked in full; returns those that differ now.

    `key`, `password`: None leaves what is stored, "" removes it. Raises Invalid, and stores
    nothing then.
    """
    cluster.refresh_from_db()
    names = [f.attname for f in HpcCluster._meta.concrete_fields if not f.primary_key]
    before = {name: getattr(cluster, name) for name in names}
    credentials.change(cluster, key, password)
    for name, value in fields.items():
        setattr(cluster, name, value)
    _check(cluster)
    changes = {name for name in names if getattr(cluster, name) != before[name]}
    save(cluster, changes)
    return changes


def save(cluster: HpcCluster, names: Collection[str]) -> None:
    """Store these columns, which were checked; another place or credentials count at once."""
    with transaction.atomic():
        _locked_link(cluster)  # the link's row first, as everywhere: else two wait for each other
        cluster.save(update_fields=names)
        changed(cluster, names)


def changed(cluster: HpcCluster, names: Collection[str]) -> None:
    """Columns of the cluster were saved anew: another place or other credentials count at once.

    Confirmed host keys stay: they are the cluster's, wherever it moves.
    """
    is_elsewhere = bool(PLACE.intersection(names))
    if not is_elsewhere and not CREDENTIALS.intersection(names):
        return
    with transaction.atomic():
        link = _locked_link(cluster)
        logins.changed(cluster.pk)
        columns = dict(WHERE_IT_WAS) if is_elsewhere else {}
        if is_elsewhere and link.wanted and link.holder:
            columns["bootstrap_requested_at"] = Now()  # its holder is linked to the old place
        if link.blocked_reason != leases.COPY:
            columns |= _tried_anew(link)
        ClusterLink.objects.filter(pk=cluster.pk).update(**columns)
        if link.wanted:
            publish.connect(cluster.pk)


def ensure_link(cluster: HpcCluster) -> ClusterLink:
    """The cluster's link row; it is made with the cluster."""
    return ClusterLink.objects.get_or_create(cluster=cluster)[0]


def connect(cluster: HpcCluster, force: bool = False, *, is_by_person: bool = True) -> None:
    """Want a link: whatever holds it back is lifted. `force`: also see to the daemon anew.

    `is_by_person`: credentials that were refused are tried once more, and a pause of logins ends.
    A program may ask at any rate: to try them again each time would lock the account.
    """
    _refuse_unready(cluster)
    with transaction.atomic():
        link = _locked_link(cluster)
        _refuse_copy(cluster, link)
        if is_by_person:
            logins.forgive(cluster.pk)
        columns: dict[str, Any] = {"wanted": True, **_tried_anew(link)}
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
        procedures.withdraw(cluster.pk, Kind.BOOTSTRAP, "The cluster was disconnected before.")
        publish.disconnect(cluster.pk)


def test(cluster: HpcCluster, by: Any = None) -> Procedure:
    """Have a worker log in and look, step by step; nothing is changed on the cluster."""
    _refuse_unready(cluster)
    with transaction.atomic():
        ensure_link(cluster)
        logins.forgive(cluster.pk)
        procedure = procedures.request(cluster, Kind.TEST, by)
        publish.test_connection(cluster.pk)
    return procedure


def bootstrap(cluster: HpcCluster, by: Any = None) -> Procedure:
    """Have the daemon started if none answers; a worker does it, step by step.

    The first one also wants the link: whoever registers a cluster means to use it.
    """
    _refuse_unready(cluster)
    with transaction.atomic():
        link = _locked_link(cluster)
        _refuse_copy(cluster, link)
        logins.forgive(cluster.pk)
        if not link.epoch:
            ClusterLink.objects.filter(pk=link.pk).update(wanted=True)
        request_bootstrap(cluster.pk)
        procedure = procedures.request(cluster, Kind.BOOTSTRAP, by)
        publish.bootstrap(cluster.pk)
    return procedure


def open_ssh(cluster: HpcCluster) -> tuple[Any, Any]:
    """A connected paramiko SSHClient with a session channel, for workers and commands.

    The host key is verified and the login counted. It takes seconds: never call it in a request.
    Close the client. Raises Invalid, Misconfigured, and Unavailable or Refused with what keeps the
    login from being made, or a session from being opened.
    """
    if cluster.carrier != Carrier.SSH:
        raise errors.Invalid(f"Cluster {cluster.name} is reached without SSH: its host is here.")
    _refuse_unready(cluster)
    return ssh_opener.open_ssh(cluster)


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
        link = _locked_link(cluster)
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


def _check(cluster: HpcCluster) -> None:
    try:
        cluster.full_clean()
    except ValidationError as error:
        raise errors.Invalid(f"Cluster {cluster.name!r}: {_sentence(error)}") from error


def _refuse_unready(cluster: HpcCluster) -> None:
    """No login is asked for that is bound to fail; the sentence says what to do first."""
    if cluster.carrier != Carrier.SSH:
        return
    if not cluster.key and not cluster.password:
        raise errors.Invalid(
            f"Cluster {cluster.name} has neither a private key nor a password: enter one of them"
            f" first (hpc cluster set {cluster.name} --key-file ...)."
        )
    if not host_keys.pinned(cluster.pk):
        raise errors.Invalid(
            f"No host key of cluster {cluster.name} is confirmed: fetch its host keys, compare"
            " their fingerprints with those that the site publishes, and confirm them first (hpc"
            f" cluster host-key {cluster.name} --fetch)."
        )


def _refuse_copy(cluster: HpcCluster, link: ClusterLink) -> None:
    if link.blocked_reason == leases.COPY:
        raise errors.Invalid(
            f"Cluster {cluster.name} belongs to another instance, this database is a copy:"
            f" take it over with `hpc adopt {cluster.name}`, or leave it alone."
        )


def _locked_link(cluster: HpcCluster) -> ClusterLink:
    return ClusterLink.objects.select_for_update().get(pk=ensure_link(cluster).pk)


def _tried_anew(link: ClusterLink) -> dict[str, Any]:
    """The columns of a link that nothing holds back any more."""
    columns: dict[str, Any] = {"failures": 0, **UNBLOCKED}
    if link.state == LinkState.BLOCKED:
        columns["state"] = LinkState.DOWN
    return columns


def _sentence(error: ValidationError) -> str:
    if not hasattr(error, "error_dict"):
        return " ".join(error.messages)
    return " ".join(
        f"{name}: {message}" if name != "__all__" else message
        for name, messages in error.message_dict.items()
        for message in messages
    )
