"""Files on their way between a web process (by the relay) and a cluster (by a data link).

What comes is passed on as it came: nothing is hashed or gathered here, both ends do that. A link
that proves dead before the first word was said is replaced once; from then on each failure is told
to whoever asked, who then knows that what he has is not the file.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django import db

from cluster_client.protocol import messages
from controller import conf
from controller import errors as controller_errors
from controller.models import FileTransfer
from controller.models.transfer import TransferState
from controller.relay import listening
from controller.relay.connection import Connection
from controller.relay.frames import Kind, json_of, payload_of
from controller.services import transfers

from ..links import clock, data, errors
from . import data_links, told
from .under_way import GONE, STOPPED, Carried, WebGone, WebStalled, under_way

logger = logging.getLogger(__name__)

START_MARGIN_S = 2.0
"""A moment before who asked gives up, so that the reason is heard."""
TOO_OLD = "unknown_message"
ETAG_LIMIT, SHA256_LIMIT = 128, 64
"""Characters; a client that has more to say would burst a frame of the relay."""

Columns = dict[str, Any]
Carry = Callable[[Carried, FileTransfer], Columns]
"""Carries a file; what is then known of it, for its row."""


def download(transfer_id: str, token: str) -> None:
    """Carry a file from a cluster to the web process that waits by `token`."""
    _carry(UUID(transfer_id), UUID(token), _fetch)


def upload(transfer_id: str, token: str) -> None:
    """Carry a file from the web process that waits by `token` to a cluster."""
    _carry(UUID(transfer_id), UUID(token), _store)


def _carry(transfer_id: UUID, token: UUID, carry: Carry) -> None:
    """Meet who asked; whatever goes wrong is told there, and raised nowhere."""
    try:
        relay = listening.connect(token)
    except controller_errors.HpcError as problem:
        # Whoever asked has ended the row, or upkeep will.
        logger.warning(
            "transfer.nobody_waits", extra={"transfer": str(transfer_id), "problem": str(problem)}
        )
        return
    try:
        with under_way.carrying(transfer_id, relay) as carried:
            _carry_claimed(carried, token, carry)
    except controller_errors.HpcError as problem:  # there is no room
        _tell(relay, problem)
    finally:
        relay.close()


def _carry_claimed(carried: Carried, token: UUID, carry: Carry) -> None:
    worker = f"{socket.gethostname()}:{os.getpid()}"
    try:
        transfer = transfers.claim(carried.transfer_id, token, worker)
    except Exception as failure:  # noqa: BLE001  # told
        _tell(carried.relay, told.as_error(failure))  # the row may be another's: it stays
        return
    _conclude(carried, transfer, carry)


def _conclude(carried: Carried, transfer: FileTransfer, carry: Carry) -> None:
    """Carry it and end its row; the row first, since whoever asked may not listen for long."""
    try:
        columns = carry(carried, transfer)
    except Exception as failure:  # noqa: BLE001  # told
        state, problem = _judged(carried, failure)
        under_way.finish(transfer.pk, state, done_bytes=carried.done_bytes, failure=str(problem))
        logger.info(
            "transfer.not_carried",
            extra={"transfer": str(transfer.pk), "state": state.value, "problem": str(problem)},
        )
        if not isinstance(failure, WebGone | WebStalled):
            _tell(carried.relay, problem)
        return
    under_way.finish(transfer.pk, TransferState.COMPLETED, done_bytes=carried.done_bytes, **columns)
    if "size_bytes" in columns:
        _tell_stored(carried, columns)


def _judged(
    carried: Carried, failure: Exception
) -> tuple[TransferState, controller_errors.HpcError]:
    """What a transfer that failed has become, and why."""
    if carried.stopped == STOPPED:
        kind = (
            controller_errors.TransferBroken
            if carried.is_started
            else controller_errors.Unavailable
        )
        return TransferState.FAILED, kind(STOPPED)
    if carried.stopped == GONE or isinstance(failure, WebGone):
        return TransferState.CANCELLED, controller_errors.TransferBroken(GONE)
    if isinstance(failure, WebStalled):
        return TransferState.FAILED, controller_errors.Timeout(str(failure))
    return TransferState.FAILED, told.as_error(failure)


def _tell(relay: Connection, problem: controller_errors.HpcError) -> None:
    try:
        relay.send(Kind.ERROR, payload_of(told.document(problem)))
    except controller_errors.HpcError as unheard:
        logger.info("transfer.problem_not_heard", extra={"problem": str(unheard)})


# Down ---------------------------------------------------------------------------------------------


def _fetch(carried: Carried, transfer: FileTransfer) -> Columns:
    def talk(link: data.DataLink) -> messages.End:
        with carried.holding(link):
            return _stream(carried, transfer, link)

    end = data_links.use(transfer.cluster, talk, _start_ends_at(), is_transfer=True)
    sha256 = end.sha256[:SHA256_LIMIT]
    carried.send(Kind.END, payload_of({"bytes_sent": end.bytes_sent, "sha256": sha256}))
    if carried.receive().kind is not Kind.ACK:
        raise WebGone(GONE)
    return {"sha256": sha256}


def _stream(carried: Carried, transfer: FileTransfer, link: data.DataLink) -> messages.End:
    opened = told.answered(link.ask(_open_message(transfer)))
    etag = opened.etag[:ETAG_LIMIT]
    start = {"size_bytes": opened.size_bytes, "etag": etag, "name": _name(transfer)}
    _start(carried, start)
    stall_s = conf.get().transfer_stall_s
    try:
        while True:
            link.extend(clock.now() + stall_s)
            piece = link.receive_piece()
            if isinstance(piece, messages.End):
                break
            carried.send(Kind.DATA, piece)
            carried.done_bytes += len(piece)
    except errors.LinkError as problem:
        raise _broken(carried, transfer, opened.size_bytes, str(problem)) from problem
    _check_end(carried, transfer, opened, piece)
    return piece


def _check_end(
    carried: Carried, transfer: FileTransfer, opened: messages.Opened, end: messages.End
) -> None:
    if end.problem:
        raise _broken(carried, transfer, opened.size_bytes, end.problem)
    if not end.bytes_sent == carried.done_bytes == opened.size_bytes:
        cause = f"The client sent {end.bytes_sent} bytes, of which {carried.done_bytes} came."
        raise _broken(carried, transfer, opened.size_bytes, cause)


def _open_message(transfer: FileTransfer) -> messages.Open:
    return messages.Open(
        transfer=str(transfer.pk),
        attempt=1,
        tag=_tag(transfer),
        path=_path(transfer),
        chunk_bytes=conf.get().file_connection_chunk_size,
    )


# Up -----------------------------------------------------------------------------------------------


def _store(carried: Carried, transfer: FileTransfer) -> Columns:
    def talk(link: data.DataLink) -> tuple[messages.Stored, str]:
        with carried.holding(link):
            return _put(carried, transfer, link)

    stored, sha256 = data_links.use(transfer.cluster, talk, _start_ends_at(), is_transfer=True)
    return {"sha256": sha256, "size_bytes": stored.size_bytes, "etag": stored.etag[:ETAG_LIMIT]}


def _put(
    carried: Carried, transfer: FileTransfer, link: data.DataLink
) -> tuple[messages.Stored, str]:
    size_bytes = transfer.size_bytes or 0
    wish = messages.Put(str(transfer.pk), _tag(transfer), _path(transfer), size_bytes)
    _answered_put(transfer, link.ask(wish))
    _start(carried, {})
    stall_s = conf.get().transfer_stall_s
    try:
        sha256 = _pass_on(carried, link, stall_s)
        link.extend(clock.now() + stall_s)
        stored = told.answered(link.ask(messages.Finish(carried.done_bytes, sha256)))
    except errors.LinkError as problem:
        raise _broken(carried, transfer, size_bytes, str(problem)) from problem
    if not carried.done_bytes == stored.size_bytes == size_bytes or not sha256:
        cause = f"The client says that it stored {stored.size_bytes} bytes."
        raise _broken(carried, transfer, size_bytes, cause)
    return stored, sha256


def _pass_on(carried: Carried, link: data.DataLink, stall_s: float) -> str:
    """The web's bytes to the client; their sha256 as the web says, "" if the client failed."""
    while (frame := carried.receive()).kind is Kind.DATA:
        link.extend(clock.now() + stall_s)
        if not link.send_piece(frame.payload):
            return ""
        carried.done_bytes += len(frame.payload)
    if frame.kind is not Kind.END:
        raise WebGone(GONE)
    return str(json_of(frame).get("sha256", ""))


def _answered_put(transfer: FileTransfer, reply: Any) -> None:
    if isinstance(reply, messages.Error) and reply.code == TOO_OLD:
        name = transfer.cluster.name
        raise controller_errors.Refused(
            f"The client on cluster {name} is too old to take files: Bootstrap the cluster (hpc "
            f"cluster bootstrap {name}), which upgrades it, then send the file again."
        )
    told.answered(reply)


def _tell_stored(carried: Carried, columns: Columns) -> None:
    receipt = {"size_bytes": columns["size_bytes"], "etag": columns["etag"]}
    try:
        carried.send(Kind.ACK, payload_of(receipt))
    except (WebGone, WebStalled) as unheard:  # the file is there all the same
        logger.info("transfer.receipt_not_heard", extra={"problem": str(unheard)})


# Either way ---------------------------------------------------------------------------------------


def _start_ends_at() -> float:
    return clock.now() + max(1.0, conf.get().transfer_start_s - START_MARGIN_S)


def _start(carried: Carried, document: dict[str, Any]) -> None:
    """From here on the HTTP status is known, and the link is not replaced any more."""
    db.connections.close_all()  # a transfer may take hours: it holds no connection to the database
    carried.send(Kind.START, payload_of(document))
    carried.is_started = True


def _tag(transfer: FileTransfer) -> str:
    if transfer.job is None:
        raise controller_errors.NotFound(f"Transfer {transfer.pk} names no job.")
    return transfer.job.tag


def _path(transfer: FileTransfer) -> str:
    """As the client takes it: bytes that are no UTF-8 as surrogates."""
    return transfers.exact_path(transfer).decode("utf-8", "surrogateescape")


def _name(transfer: FileTransfer) -> str:
    return transfer.path.rstrip("/").rpartition("/")[2]


def _broken(
    carried: Carried, transfer: FileTransfer, size_bytes: int, cause: str
) -> controller_errors.TransferBroken:
    return controller_errors.TransferBroken(
        f"{_name(transfer)} broke off after {carried.done_bytes} of {size_bytes} bytes: {cause}"
        " Start it again."
    )
