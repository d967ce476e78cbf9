"""`client.py files`: list, stat, read and write in jobs' directories, over stdin and stdout.

It needs no daemon. One transfer at a time:
- Open, Opened, binary frames, End. A stream that breaks off without End failed.
- Put, Ready, binary frames, Finish, Stored. If what comes can't be kept, End says so at once and
  the rest is passed over; Finish is then answered with the reason. Any other request gives the
  upload up. A link that breaks does too.

The process ends when the other end goes away, whatever it is waiting for.
"""

from __future__ import annotations

import os
import threading
from typing import Any, Optional

from websockets.exceptions import ConnectionClosed

from . import (
    account,
    build,
    configuration,
    confinement,
    dial,
    errors,
    host,
    listing,
    reading,
    registry,
    sources,
    start_document,
    writing,
)
from .protocol import messages
from .protocol.errors import FrameTooLarge, OutOfOrder, ProtocolError
from .protocol.session import Request, Session, common_version
from .stdio_socket import Data, StdioSocket

GREETING_LIMIT_S = 20.0
IDLE_LIMIT_S = 600.0
"""Whoever asked has gone without a word: its host, or the network between, is down."""
MESSAGES_WAITING = 2
"""Chunks of an upload in memory, besides the one that is written."""
GONE_LIMIT_S = 0.5
"""How long this process outlives the other end, while it only reads."""
CLEAN_UP_LIMIT_S = 60.0
"""The same while a file is written, whose remains are to be removed."""
PROTOCOL_ERROR = 1002
INTERNAL_ERROR = 1011


def main(key: str) -> int:
    """Serve one data connection on stdio."""
    try:
        document = configuration.read_document(start_document.last(key), key)
        settings = configuration.load(sources.client_path(), document)
        account.check_user(settings.allow_root)
    except errors.ClientError as error:
        dial.marker(
            status="failed", host=host.host_name(), detail=str(error), versions=[], last_death=""
        )
        return 1
    dial.marker(
        status="connected",
        host=host.host_name(),
        detail="Ready for files.",
        versions=list(messages.VERSIONS),
        last_death=registry.read_last_death(settings.state_directory),
    )
    os.umask(settings.umask)
    life = Life()
    socket = StdioSocket(messages.DATA_LIMIT_BYTES, MESSAGES_WAITING, life.end_soon)
    with life:
        FilesLink(socket, settings, life).run()
    return 0


class Life:
    """Ends the process after the other end, also if the main thread waits for a file server, or
    for room in a pipe that nobody reads any more: neither wait can be given up in any other way."""

    def __init__(self) -> None:
        self.is_writing = False
        self._is_over = threading.Event()

    def __enter__(self) -> Life:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()

    def end_soon(self) -> None:
        """Called by another thread once the other end is gone."""
        if not self._is_over.wait(CLEAN_UP_LIMIT_S if self.is_writing else GONE_LIMIT_S):
            os._exit(0)


class FilesLink:
    """The session of one data connection."""

    def __init__(self, socket: StdioSocket, settings: configuration.Settings, life: Life) -> None:
        self._life = life
        self._upload: Optional[writing.Upload] = None
        self._failure: Optional[errors.ClientError] = None
        self._socket = socket
        self._settings = settings
        self._root = settings.job_working_directory
        self._session = Session(messages.DATA_LIMIT_BYTES)
        self._lister = listing.Lister(self._root)

    def run(self) -> None:
        """Answer until the other end closes or breaks the protocol."""
        try:
            while True:
                limit_s = IDLE_LIMIT_S if self._session.is_greeted else GREETING_LIMIT_S
                incoming = self._socket.receive(limit_s)
                if incoming.is_binary:
                    self._take_bytes(incoming.data)
                    continue
                for item in self._session.receive(bytes(incoming.data)):
                    if isinstance(item, Request):
                        self._answer(item)
                self._flush()
        except ConnectionClosed:
            return  # how every connection ends
        except (ProtocolError, TimeoutError) as error:
            self._close(PROTOCOL_ERROR, str(error))
        except OSError as error:
            self._close(INTERNAL_ERROR, f"reading failed: {error.strerror}")
        finally:
            self._give_up()

    def _close(self, code: int, reason: str) -> None:
        self._socket.close(code, reason.encode()[:120].decode("utf-8", "ignore"))

    def _answer(self, request: Request) -> None:
        message = request.message
        try:
            if isinstance(message, messages.Open):
                self._send_file(request.id, message)
            else:
                self._session.reply(request.id, self._reply_to(message))
        except FrameTooLarge as error:
            self._session.reply(request.id, messages.Error(error.code, str(error)))
        except errors.NotStored as error:
            self._session.reply(request.id, messages.Error(error.reason, str(error), True))
        except errors.ClientError as error:
            self._session.reply(request.id, messages.Error(error.code, str(error), error.transient))

    def _reply_to(self, message: Any) -> object:
        if isinstance(message, messages.Hello):
            return self._greet(message)
        if isinstance(message, messages.Finish):
            return self._finish(message)
        self._give_up()
        if isinstance(message, messages.Put):
            return self._start_upload(message)
        if isinstance(message, messages.List):
            return self._lister.page(message)
        if isinstance(message, messages.Stat):
            with confinement.walk(self._root, message.tag, message.path) as found:
                name = confinement.last_name(message.path)
                return messages.Stated(listing.entry(name, found.status))
        return messages.Error("wrong_purpose", "This link is for files, not for jobs.")

    def _greet(self, hello: messages.Hello) -> object:
        version = common_version(messages.VERSIONS, hello.versions)
        if version is None:
            return messages.Refused(
                "version_mismatch",
                f"This client speaks protocol {list(messages.VERSIONS)}, "
                f"the server {list(hello.versions)}.",
            )
        settings = self._settings
        if (hello.instance_id, hello.cluster_id) != (settings.instance_id, settings.cluster_id):
            return messages.Refused(
                "wrong_instance",
                f"This is {settings.instance_id}.{settings.cluster_id}, "
                f"not {hello.instance_id[:64]}.{hello.cluster_id}.",
            )
        if hello.purpose != messages.FILES:
            return messages.Error("wrong_purpose", "This link is for files, not for control.")
        return messages.Welcome(
            version=version,
            client_version=build.VERSION,
            host=host.host_name(),
            pid=os.getpid(),
            build_hash=build.build_hash(),
        )

    def _send_file(self, request_id: int, message: messages.Open) -> None:
        if message.offset < 0 or message.length < -1:
            raise errors.InvalidRequest("The offset or the length is negative.")
        self._give_up()
        with confinement.walk(self._root, message.tag, message.path) as found:
            descriptor = _open(found)
        try:
            status = os.fstat(descriptor)
            opened = messages.Opened(size_bytes=status.st_size, etag=writing.etag_of(status))
            self._session.reply(request_id, opened)
            self._flush()
            part = reading.part(message, status.st_size)
            self._session.notify(reading.stream(descriptor, part, self._socket.send_buffer))
        finally:
            os.close(descriptor)

    # Uploads ------------------------------------------------------------------------------------

    def _start_upload(self, message: messages.Put) -> messages.Ready:
        self._life.is_writing = True
        try:
            self._upload = writing.Upload(self._root, message)
        finally:
            self._life.is_writing = self._upload is not None
        return messages.Ready()

    def _take_bytes(self, data: Data) -> None:
        if self._failure is not None:
            return  # sent before our word that it failed was heard
        if self._upload is None:
            raise OutOfOrder("Raw bytes came without a Put.")
        try:
            self._upload.write(data)
        except errors.ClientError as error:
            self._give_up()
            self._failure = error
            self._session.notify(messages.End(0, "", problem=str(error)))
            self._flush()

    def _finish(self, message: messages.Finish) -> messages.Stored:
        failure, upload = self._failure, self._upload
        self._failure = None
        if failure is not None:
            raise failure
        if upload is None:
            raise errors.InvalidRequest("No upload is under way on this connection.")
        try:
            return upload.finish(message)
        finally:
            self._give_up()

    def _give_up(self) -> None:
        """Leave nothing of an upload that was not finished."""
        upload, self._upload, self._failure = self._upload, None, None
        if upload is not None:
            upload.abort()
        self._life.is_writing = False

    def _flush(self) -> None:
        for text in self._session.texts_to_send():
            self._socket.send(text)


def _open(found: confinement.Found) -> int:
    try:
        return found.open_file()
    except OSError as error:
        raise errors.PathRefused(f"{found.shown} can't be opened: {error.strerror}.") from None
