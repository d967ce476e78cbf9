"""A files worker's part at the relay, without a cluster: scripted, on a thread of its own."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db import connection as database

from controller import errors
from controller.models import FileTransfer
from controller.models.transfer import TransferState
from controller.relay import listening
from controller.relay.connection import Connection
from controller.relay.frames import Kind, json_of, payload_of
from controller.services import transfers

LIMIT_S = 30.0
Part = Callable[[FileTransfer, Connection], None]


class Workers:
    """Stands where the queue stands: each transfer that is started gets a worker that plays `part`.

    `ended`: what each part raised, or None.
    """

    def __init__(self, part: Part) -> None:
        self.part = part
        self.ended: list[BaseException | None] = []
        self.threads: list[threading.Thread] = []

    def __call__(self, name: str, transfer_id: str, token: str, expires_s: float) -> None:
        thread = threading.Thread(target=self._run, args=(transfer_id, token))
        self.threads.append(thread)
        thread.start()

    def join(self) -> list[BaseException | None]:
        for thread in self.threads:
            thread.join(LIMIT_S)
            assert not thread.is_alive()
        return self.ended

    def _run(self, transfer_id: str, token: str) -> None:
        problem: BaseException | None = None
        try:
            connection = listening.connect(UUID(token))
            try:
                self.part(transfers.claim(transfer_id, token, "scripted"), connection)
            finally:
                connection.close()
        except errors.HpcError as error:
            problem = error
        finally:
            self.ended.append(problem)
            database.close()


def start(connection: Connection, size_bytes: int, **more: Any) -> None:
    connection.send(Kind.START, payload_of({"size_bytes": size_bytes, "etag": "e1", **more}))


def end(connection: Connection, content: bytes) -> None:
    told = {"bytes_sent": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    connection.send(Kind.END, payload_of(told))


def sends(content: bytes, piece_bytes: int = 1000) -> Part:
    """A worker that sends a file as it should."""

    def part(transfer: FileTransfer, connection: Connection) -> None:
        start(connection, len(content))
        for at in range(0, len(content), piece_bytes):
            connection.send(Kind.DATA, content[at : at + piece_bytes])
        end(connection, content)
        assert connection.receive(LIMIT_S).kind is Kind.ACK
        transfers.finish(transfer.pk, TransferState.COMPLETED, done_bytes=len(content))

    return part


def takes(kept: list[bytes]) -> Part:
    """A worker that stores a file as it should; one that breaks off leaves nothing in `kept`."""

    def part(transfer: FileTransfer, connection: Connection) -> None:
        connection.send(Kind.START)
        content = bytearray()
        while (frame := connection.receive(LIMIT_S)).kind is Kind.DATA:
            content += frame.payload
        assert frame.kind is Kind.END
        assert json_of(frame)["sha256"] == hashlib.sha256(content).hexdigest()
        kept.append(bytes(content))
        connection.send(Kind.ACK, payload_of({"size_bytes": len(content), "etag": "e2"}))
        transfers.finish(transfer.pk, TransferState.COMPLETED, done_bytes=len(content))

    return part
