"""The rows of files on their way: counted against the bounds, claimed once, ended once.

Rules:
- What counts against a bound is the row: it is made under the lock that the count is taken under.
- Each move is one conditional UPDATE: whoever changes no row has lost. Nothing is written to a
  transfer that has ended.
- A row that nobody keeps fresh has nobody who carries it: it counts no more, and upkeep ends it.
  Should somebody carry it all the same, who could not tell for a minute, he takes that end back.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db import models, transaction
from django.db.models import Case, Q, QuerySet, Value, When
from django.db.models.functions import Now

from .. import conf, errors
from ..models import ClusterLink, FileTransfer, HpcCluster, HpcJob, WebsocketToken
from ..models.transfer import ACTIVE, Direction, TransferState
from ..queries import older_than
from . import clusters
from .reports import clean_text

logger = logging.getLogger(__name__)

SILENCE_S = 60.0
"""A transfer that told nothing for so long has nobody who carries it on; they tell every 5 s."""
TOKEN_LIFE_S = 60.0
RETRY_AFTER_S = 5.0
PATH_LIMIT_BYTES = 4096
"""PATH_MAX of Linux."""
SIZE_LIMIT_BYTES = (1 << 63) - 1
GONE = "The worker that carried it is gone: start it again."
HEX_SHA256 = re.compile(r"[0-9a-f]{64}")


def begin(
    job: HpcJob | None,
    cluster: HpcCluster,
    direction: Direction,
    path: str | bytes,
    owner: Any = None,
    size_bytes: int | None = None,
) -> FileTransfer:
    """A transfer that waits for a worker, and counts from now on.

    Raises Busy, with `retry_after_s`, where as many are under way as the settings allow; Invalid
    inside a transaction, since no worker could see the row.
    """
    exact = exact_bytes(path)
    link = clusters.ensure_link(cluster)
    made = FileTransfer(
        cluster=cluster,
        job=job,
        owner=owner,
        direction=direction,
        path=clean_text(exact.decode("utf-8", "replace"), PATH_LIMIT_BYTES),
        path_b64=base64.b64encode(exact).decode(),
        size_bytes=size_bytes,
    )
    try:
        with transaction.atomic(durable=True):
            _check_cluster(link)
            if owner is not None:
                _check_user(owner)
            made.save(force_insert=True)
    except RuntimeError as error:  # Source: Atomic.__enter__ in django/db/transaction.py
        raise errors.Invalid(
            "A file can't be sent or fetched within a database transaction: mark the view with"
            " transaction.non_atomic_requests, or call outside of atomic()."
        ) from error
    made.refresh_from_db()
    logger.info("transfer asked for", extra={"transfer": str(made.pk), "cluster": cluster.pk})
    return made


def exact_bytes(path: str | bytes) -> bytes:
    """A path as the cluster has it; in text, surrogates (PEP 383) are bytes. Raises Invalid."""
    try:
        exact = path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise errors.Invalid("A path holds characters that no file's name can hold.") from None
    if b"\0" in exact:
        raise errors.Invalid("A path holds a NUL byte: no file can be called so.")
    if len(exact) > PATH_LIMIT_BYTES:
        raise errors.Invalid(
            f"A path of {len(exact)} bytes was asked for; {PATH_LIMIT_BYTES} are the most."
        )
    return exact


def exact_path(transfer: FileTransfer) -> bytes:
    """The path as it was asked for, relative to the job's directory."""
    return base64.b64decode(transfer.path_b64)


def new_token(transfer: FileTransfer) -> UUID:
    """A name by which one worker finds us within TOKEN_LIFE_S."""
    made = WebsocketToken.objects.create(
        cluster_id=transfer.cluster_id, transfer=transfer, is_file=True
    )
    return made.token


def claim(transfer_id: str | UUID, token: str | UUID, worker: str) -> FileTransfer:
    """Take the transfer up, for workers: the token is used, and only the winner gets the row.

    Raises Refused.
    """
    try:
        transfer_id, token = UUID(str(transfer_id)), UUID(str(token))
    except ValueError:
        raise errors.Refused("What should name a transfer and its token does not.") from None
    tokens = WebsocketToken.objects.filter(
        token=token, transfer=transfer_id, is_file=True, used=False
    )
    if not tokens.exclude(older_than("timestamp", TOKEN_LIFE_S)).update(used=True):
        raise errors.Refused(
            f"The token of transfer {transfer_id} was used before, or is older than"
            f" {TOKEN_LIFE_S:g} s: start the transfer again."
        )
    waiting = FileTransfer.objects.filter(pk=transfer_id, state=TransferState.PENDING)
    if not waiting.update(state=TransferState.RUNNING, worker=worker[:200], changed_at=Now()):
        raise errors.Refused(f"Transfer {transfer_id} is over, or carried by another worker.")
    return FileTransfer.objects.select_related("cluster", "job").get(pk=transfer_id)


def announce(transfer_id: UUID, size_bytes: int, etag: str) -> None:
    """Note what is known once the file is open."""
    _active(transfer_id).update(size_bytes=size_bytes, etag=etag, changed_at=Now())


def progress(done_bytes: Mapping[UUID, int]) -> int:
    """Note how far the transfers of a process are; returns how many are still active.

    Called every few seconds for all of them, stalled ones too: those not named here are given up.
    """
    if not done_bytes:
        return 0
    column = models.PositiveBigIntegerField()
    cases = [When(pk=pk, then=Value(done, column)) for pk, done in done_bytes.items()]
    told = {"done_bytes": Case(*cases, output_field=column), "changed_at": Now()}
    rows = FileTransfer.objects.filter(pk__in=list(done_bytes))
    count = rows.filter(state__in=ACTIVE).update(**told)
    if count < len(done_bytes):
        anew = {"state": TransferState.RUNNING, "failure": "", "finished_at": None}
        count += rows.filter(_is_given_up()).update(**told, **anew)
    return count


def finish(
    transfer_id: str | UUID,
    state: TransferState,
    *,
    done_bytes: int | None = None,
    sha256: str = "",
    failure: str = "",
    etag: str = "",
    size_bytes: int | None = None,
) -> bool:
    """End a transfer; False if it had ended, whose end then stays as it is."""
    changes: dict[str, Any] = {
        "state": state,
        "failure": clean_text(failure),
        "finished_at": Now(),
        "changed_at": Now(),
    }
    if HEX_SHA256.fullmatch(sha256):
        changes["sha256"] = sha256
    if etag:
        changes["etag"] = clean_text(etag, 128)
    for name, value in (("done_bytes", done_bytes), ("size_bytes", size_bytes)):
        if value is not None and 0 <= value <= SIZE_LIMIT_BYTES:
            changes[name] = value
    rows = FileTransfer.objects.filter(Q(state__in=ACTIVE) | _is_given_up(), pk=transfer_id)
    is_ended = bool(rows.update(**changes))
    if is_ended:
        logger.info("transfer ended", extra={"transfer": str(transfer_id), "state": str(state)})
    return is_ended


def expire() -> int:
    """End the transfers that went silent; returns how many."""
    silent = FileTransfer.objects.filter(older_than("changed_at", SILENCE_S), state__in=ACTIVE)
    return silent.update(
        state=TransferState.FAILED, failure=GONE, finished_at=Now(), changed_at=Now()
    )


def _check_cluster(link: ClusterLink) -> None:
    """Hold the cluster's link row, under which its transfers are counted."""
    ClusterLink.objects.select_for_update(no_key=True).get(pk=link.pk)
    limit = conf.get().transfers_per_cluster
    if _under_way().filter(cluster=link.pk).count() >= limit:
        raise _busy(
            f"{limit} files of cluster {link.cluster.name} are on their way, which is as many as"
            " HPC_TRANSFERS_PER_CLUSTER allows: try again in a few seconds."
        )


def _check_user(owner: Any) -> None:
    """Hold the user's row; taken after the link's, always."""
    get_user_model()._base_manager.select_for_update(no_key=True).get(pk=owner.pk)
    limit = conf.get().transfers_per_user
    if _under_way().filter(owner=owner.pk).count() >= limit:
        raise _busy(
            f"{limit} files of user {owner} are on their way, which is as many as"
            " HPC_TRANSFERS_PER_USER allows: wait until one has ended."
        )


def _busy(sentence: str) -> errors.Busy:
    problem = errors.Busy(sentence)
    problem.retry_after_s = RETRY_AFTER_S
    return problem


def _under_way() -> QuerySet[FileTransfer]:
    return FileTransfer.objects.filter(state__in=ACTIVE).exclude(
        older_than("changed_at", SILENCE_S)
    )


def _is_given_up() -> Q:
    """Taken for silent; perhaps wrongly: while the database is away nobody can tell anything."""
    return Q(state=TransferState.FAILED, failure=GONE)


def _active(transfer_id: str | UUID) -> QuerySet[FileTransfer]:
    return FileTransfer.objects.filter(pk=transfer_id, state__in=ACTIVE)
