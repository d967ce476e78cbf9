"""The way to a cluster's account: credentials, pinned host keys, logins counted over all processes.

Threads of links never touch the ORM: what needs the database goes through a `run` that the caller
gives, the writers' pool for links, a plain call for tasks.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from datetime import datetime
from typing import Any, Protocol, TypeVar

import paramiko

from controller import conf
from controller import errors as controller_errors
from controller.models import Carrier, ClusterLink, HpcCluster
from controller.services import cluster_fields, clusters, host_keys, logins

from ..links import addresses, carriers, clock, errors, ssh, ssh_carrier, ssh_errors
from ..links.host_keys import HostKey
from ..links.ssh_transport import Transport
from .plans import Plan
from .untold import untold

logger = logging.getLogger(__name__)

T = TypeVar("T")

CONTROL, FILES, TEST = "control", "files", "test"
"""What a login is for."""

DECRYPT_PAUSE_S = 60.0
SOON_S = 5.0
OTHERS_LIMIT_S = 30.0
"""How long to wait for another process whose login shows whether the credentials are good."""
GIVEN_UP_S = logins.TRYING_S + 15.0
"""The same for a link, which nobody waits for: until a process that died in it is given up."""


class Run(Protocol):
    """Runs a call on the database and returns what it returns."""

    def __call__(self, call: Callable[[], T], /) -> T: ...


def directly(call: Callable[[], T]) -> T:
    """For callers that may use the database themselves."""
    return call()


def login_of(cluster: HpcCluster) -> ssh.Login:
    """How to log in to the cluster. Raises CannotConnect if its secrets can't be decrypted."""
    try:
        key, password = cluster.key.reveal(), cluster.password.reveal()
    except controller_errors.CannotDecrypt as problem:
        raise errors.CannotConnect(
            "cannot_decrypt",
            f"The credentials of cluster {cluster.name} can't be used. {problem}",
            pause_s=DECRYPT_PAUSE_S,
        ) from None
    return ssh.Login(
        cluster.host_name,
        cluster.username,
        cluster.port,
        key,
        password,
        frozenset(
            HostKey(row.key_type, row.fingerprint, row.address)
            for row in host_keys.pinned(cluster.pk)
        ),
    )


def carrier_kind(cluster: HpcCluster) -> str:
    """The cluster's carrier; one without a word of it is reached by SSH, save this machine."""
    is_local = cluster.host_name.lower() in cluster_fields.LOCAL_HOSTS
    return cluster.carrier or (Carrier.LOCAL if is_local else Carrier.SSH)


class Gate:
    """The cluster's budget of logins and their outcome, for one carrier: one login at a time."""

    def __init__(
        self, cluster_id: int, purpose: str, run: Run, known_change: datetime | None = None
    ) -> None:
        self._cluster_id = cluster_id
        self._purpose = purpose
        self._run = run
        self._known_change = known_change
        self._attempt_id = 0

    def ask(self) -> float:
        """See ssh.Gate; waits a while for another process that is just logging in."""
        ends_at = clock.now() + (GIVEN_UP_S if self._purpose == CONTROL else OTHERS_LIMIT_S)
        while True:
            answer = self._run(self._ask)
            if isinstance(answer, logins.Allowed):
                self._attempt_id = answer.attempt_id
                return 0.0
            if isinstance(answer, logins.Refused):
                raise ssh_errors.known_as(answer.reason)(answer.detail)
            is_late = answer.seconds > SOON_S or clock.now() >= ends_at
            if is_late or self._run(self._is_outdated):
                raise ssh_errors.BudgetSpent(answer.sentence, pause_s=answer.seconds)
            time.sleep(answer.seconds)  # another host's login is told by a row alone

    def _ask(self) -> logins.Answer:
        untold.tell(self._cluster_id)
        return logins.ask(self._cluster_id, self._purpose, self._known_change)

    def _is_outdated(self) -> bool:
        """Whether the credentials at hand are no longer those of the cluster's row."""
        rows = ClusterLink.objects.filter(pk=self._cluster_id)
        return rows.values_list("login_changed_at", flat=True).first() != self._known_change

    def told(self, problem: ssh_errors.LoginError | None) -> None:
        """See ssh.Gate; an outcome that can't be stored now is told before the next login."""
        attempt_id = self._attempt_id
        self._store(lambda: _tell(self._cluster_id, attempt_id, problem))

    def revoked(self, problem: ssh_errors.LoginError) -> None:
        """See ssh.Gate; stored as what is told."""
        attempt_id = self._attempt_id
        code, words = problem.code, str(problem)
        self._store(lambda: logins.revoked(self._cluster_id, attempt_id, code, words))

    def _store(self, tell: Callable[[], None]) -> None:
        cluster_id = self._cluster_id
        try:
            self._run(tell)
        except CancelledError:  # the worker stops, and its writers have: nobody else will tell
            untold.keep(cluster_id, tell)
            untold.tell_all()
        except Exception:
            logger.exception("login.outcome_not_stored", extra={"cluster_id": cluster_id})
            untold.keep(cluster_id, tell)


def _tell(cluster_id: int, attempt_id: int, problem: ssh_errors.LoginError | None) -> None:
    if problem is None:
        logins.told(cluster_id, attempt_id)
        return
    logins.told(
        cluster_id,
        attempt_id,
        reason=problem.code,
        detail=str(problem),
        is_refusal=isinstance(problem, ssh_errors.REFUSALS),
        pause_s=problem.pause_s,
    )


def carrier(
    plan: Plan, purpose: str, run: Run, address: str = "", is_control: bool = True
) -> carriers.Account:
    """What reaches the cluster. Raises CannotConnect where it is not allowed.

    `address` keeps to a login node; without one, the last is preferred.
    """
    if plan.carrier == Carrier.LOCAL:
        return _local()
    if plan.carrier != Carrier.SSH or plan.login is None:
        raise errors.CannotConnect(
            "unknown_carrier",
            f"The carrier {plan.carrier!r} is not known to this worker: it may be older than the "
            "database.",
            transient=False,
        )
    return ssh_carrier.SshCarrier(
        plan.login,
        address=address,
        resolver=_preferring(plan.address),
        gate=Gate(plan.cluster_id, purpose, run, plan.login_changed_at),
        is_control=is_control,
        most_connections=math.inf if is_control else _data_connections(),
    )


def _data_connections() -> int:
    """So many that all questions and transfers of a cluster have a channel."""
    settings = conf.get()
    channels = settings.files_parallel + settings.transfers_per_cluster
    return math.ceil(channels / ssh_carrier.SESSIONS)


def _preferring(address: str) -> addresses.Resolver:
    """The daemon is most likely where it was; names are resolved in any order."""

    def resolve(host: str, port: int) -> Sequence[str]:
        found = addresses.system(host, port)
        return sorted(found, key=lambda one: one != address)

    return resolve


def _local() -> carriers.Account:
    settings = conf.get()
    if not settings.allow_local_carrier:
        raise errors.CannotConnect(
            "local_carrier_refused",
            "The local carrier runs code as the worker's own user and is refused. Set "
            "HPC_ALLOW_LOCAL_CARRIER if that is meant.",
            transient=False,
        )
    switches = {
        "HPC_ALLOW_ROOT": settings.allow_root,
        "HPC_ALLOW_FAULT_POINTS": settings.allow_fault_points,
    }
    passed_on = {name: "1" for name, is_on in switches.items() if is_on}
    if settings.fault_point:
        passed_on["HPC_FAULT_POINT"] = settings.fault_point
    return carriers.LocalCarrier(passed_on)


class Client(paramiko.SSHClient):
    """A paramiko client on a connection that is logged in already."""

    def __init__(self, transport: Transport) -> None:
        super().__init__()
        self._transport: Any = transport

    def open_session(self) -> paramiko.Channel:
        """A session in which nothing runs yet. Raises CannotConnect."""
        try:
            opened: paramiko.Channel = self._transport.open_session(
                timeout=ssh_carrier.CHANNEL_LIMIT_S
            )
        except paramiko.ChannelException as problem:
            raise ssh_carrier.no_session(problem) from None
        except (paramiko.SSHException, OSError, EOFError) as problem:
            raise ssh_carrier.broken(self._transport, problem) from problem
        return opened


def open_client(cluster: HpcCluster) -> Client:
    """A paramiko client, logged in: the host verified, the login counted. Raises CannotConnect.

    Not in a request: it may take a minute. Close it.
    """
    # In this order: who changes the credentials in between is noticed by the gate.
    link = clusters.ensure_link(cluster)
    cluster = HpcCluster.objects.get(pk=cluster.pk)
    gate = Gate(cluster.pk, TEST, directly, link.login_changed_at)
    transport, _ = ssh.open_transport(login_of(cluster), gate=gate)
    return Client(transport)


def open_for_controller(cluster: HpcCluster) -> tuple[Client, paramiko.Channel]:
    """A client and a session on it, for those who know the controller's errors alone."""
    try:
        client = open_client(cluster)
        try:
            return client, client.open_session()
        except BaseException:
            client.close()
            raise
    except errors.CannotConnect as problem:
        kind = controller_errors.Unavailable if problem.transient else controller_errors.Refused
        raise kind(str(problem)) from problem
