"""One file on its way through the relay, seen from the web process."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import Error as DatabaseError

from .. import conf, errors, publish
from ..models import FileTransfer
from ..models.transfer import TransferState
from ..relay import listening
from ..relay.connection import ACCEPT_LIMIT_S, Connection
from ..relay.frames import Bytes, Frame, Kind, json_of, payload_of
from . import transfers
from .pieces import Arrival, Departure
from .reports import clean_text

logger = logging.getLogger(__name__)

LAST_WORD_S = 2.0
"""How long is waited for the reason of a worker that hung up."""


def opened(transfer: FileTransfer, task: str) -> tuple[Connection, dict[str, Any]]:
    """A files worker that is ready to carry the transfer, and what it said (START).

    Blocks for HPC_TRANSFER_START_S at most. In any failure the row is ended with the cause.
    """
    limit_s = conf.get().transfer_start_s
    deadline = time.monotonic() + limit_s
    try:
        token = transfers.new_token(transfer)
        with listening.listen(token) as listener:
            publish.start_transfer(task, str(transfer.pk), str(token), limit_s)
            connection = listener.accept(min(limit_s, ACCEPT_LIMIT_S))
        return connection, _started(connection, deadline - time.monotonic())
    except BaseException as problem:
        _end(transfer.pk, TransferState.FAILED, problem)
        raise


def _started(connection: Connection, limit_s: float) -> dict[str, Any]:
    try:
        return _said(_first_word(connection, limit_s), Kind.START)
    except BaseException:
        connection.close()
        raise


def _first_word(connection: Connection, limit_s: float) -> Frame:
    try:
        return connection.receive(max(limit_s, 0.0))
    except errors.Timeout as error:
        raise errors.Timeout(
            "A files worker took the transfer up, but the cluster did not open the file within"
            f" {conf.get().transfer_start_s:g} s (HPC_TRANSFER_START_S): try again; if it stays so,"
            " see the worker's log, and test the connection to the cluster."
        ) from error


def _said(frame: Frame, kind: Kind) -> dict[str, Any]:
    if frame.kind is Kind.ERROR:
        raise publish.error_from(json_of(frame))
    if frame.kind is not kind:
        raise errors.TransferBroken(
            f"The files worker said {frame.kind.name} where {kind.name} was due: see that web"
            " processes and workers are of one release."
        )
    return json_of(frame)


class Download:
    """A file that comes: iterate over it, once, in threads or in asyncio, for pieces of bytes.

    Raises TransferBroken (or Timeout) before the last piece unless the whole file came, and is
    what the cluster read. Whoever drops it, or closes it, has the cluster stop reading.
    """

    def __init__(self, transfer: FileTransfer, connection: Connection) -> None:
        """`transfer` has the size."""
        self.transfer_id: UUID = transfer.pk
        self.name = base_name(transfer)
        self.size_bytes: int = transfer.size_bytes or 0
        self.etag: str = transfer.etag
        self._connection = connection
        self._arrival = Arrival(self.size_bytes)
        self._is_begun = False
        self._is_closed = False

    @property
    def sha256(self) -> str:
        """Of the file, once it came whole; before: empty."""
        return self._arrival.sha256

    def __iter__(self) -> Iterator[bytes]:
        limit_s = self._begin()
        try:
            while not self._arrival.sha256:
                piece = self._arrival.take(self._connection.receive(limit_s))
                if piece:
                    yield piece
            self._connection.send(Kind.ACK, self._receipt())
        except errors.HpcError as problem:
            self._judge(problem)
        finally:
            self.close()
        if self._arrival.held:
            yield self._arrival.held

    async def __aiter__(self) -> AsyncIterator[bytes]:
        limit_s = self._begin()
        try:
            while not self._arrival.sha256:
                piece = self._arrival.take(await self._connection.areceive(limit_s))
                if piece:
                    yield piece
            await self._connection.asend(Kind.ACK, self._receipt())
        except errors.HpcError as problem:
            await sync_to_async(self._judge)(problem)
        finally:
            self.close()
        if self._arrival.held:
            yield self._arrival.held

    def close(self) -> None:
        """Let the worker go; whole or not."""
        self._is_closed = True
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _begin(self) -> float:
        """How long may nothing come."""
        if self._is_begun:
            raise errors.Invalid(f"The download of {self.name} was read before: ask for it again.")
        self._is_begun = True
        return conf.get().transfer_stall_s

    def _judge(self, problem: errors.HpcError) -> None:
        """End the row; raise the problem, unless the file is whole and only the farewell failed."""
        done_bytes, sha256 = self._arrival.done_bytes, self._arrival.sha256
        if sha256:
            _end(self.transfer_id, TransferState.COMPLETED, done_bytes=done_bytes, sha256=sha256)
            return
        state = TransferState.CANCELLED if self._is_closed else TransferState.FAILED
        _end(self.transfer_id, state, problem, done_bytes=done_bytes)
        raise problem

    def _receipt(self) -> bytes:
        return payload_of({"bytes_received": self._arrival.done_bytes})


def download(transfer: FileTransfer) -> Download:
    """Have the file of this row fetched; blocks until its size is known, or what is wrong."""
    connection, started = opened(transfer, publish.FILES_DOWNLOAD)
    try:
        transfer.size_bytes, transfer.etag = _told(started)
        transfers.announce(transfer.pk, transfer.size_bytes, transfer.etag)
    except BaseException as problem:
        connection.close()
        _end(transfer.pk, TransferState.FAILED, problem)
        raise
    return Download(transfer, connection)


def upload(transfer: FileTransfer, pieces: Iterable[Bytes]) -> tuple[str, str]:
    """Send what `pieces` holds as the file of this row; returns its sha256 and its ETag.

    Once all was sent only the worker knows how it ended: it, or upkeep, ends the row.
    """
    connection, _ = opened(transfer, publish.FILES_UPLOAD)
    departure = Departure(transfer.size_bytes or 0)
    is_sent = False
    try:
        for piece in departure.pieces(pieces, conf.get().file_connection_chunk_size):
            _send(connection, Kind.DATA, piece)
        is_sent = True
        _send(connection, Kind.END, payload_of(departure.receipt()))
        stored = _said(connection.receive(conf.get().transfer_stall_s), Kind.ACK)
    except BaseException as problem:
        connection.close()
        if not is_sent:
            is_ours = isinstance(problem, errors.HpcError)  # else whoever gives the pieces gave up
            state = TransferState.FAILED if is_ours else TransferState.CANCELLED
            _end(transfer.pk, state, problem, done_bytes=departure.done_bytes)
        raise
    connection.close()
    return departure.sha256, clean_text(str(stored.get("etag", "")), 128)


def base_name(transfer: FileTransfer) -> str:
    """What the file is called, for people; what is no UTF-8 in it is replaced."""
    name = transfers.exact_path(transfer).rstrip(b"/").rpartition(b"/")[2]
    return name.decode("utf-8", "replace") or "file"


def _told(started: dict[str, Any]) -> tuple[int, str]:
    size_bytes, etag = started.get("size_bytes"), started.get("etag", "")
    if type(size_bytes) is not int or not 0 <= size_bytes <= transfers.SIZE_LIMIT_BYTES:
        raise errors.TransferBroken("The files worker told no size of the file: see its log.")
    return size_bytes, clean_text(etag, 128) if isinstance(etag, str) else ""


def _send(connection: Connection, kind: Kind, payload: Bytes) -> None:
    """Send, and if nobody takes it any more, raise what the worker said before it went."""
    try:
        connection.send(kind, payload)
    except errors.TransferBroken as broken:
        said = _last_word(connection)
        if said is None:
            raise
        raise said from broken


def _last_word(connection: Connection) -> errors.HpcError | None:
    try:
        frame = connection.receive(LAST_WORD_S)
        return publish.error_from(json_of(frame)) if frame.kind is Kind.ERROR else None
    except (errors.TransferBroken, errors.Timeout):
        return None


def _end(
    transfer_id: UUID,
    state: TransferState,
    problem: BaseException | None = None,
    **columns: Any,
) -> None:
    """End the row; a database that fails now must not hide the problem itself."""
    failure = str(problem) or type(problem).__name__ if problem is not None else ""
    try:
        transfers.finish(transfer_id, state, failure=failure, **columns)
    except DatabaseError:
        logger.warning("transfer not marked as ended", extra={"transfer": str(transfer_id)})
