"""`client.py files`: list, stat and read what is in jobs' directories, over stdin and stdout.

It needs no daemon. One transfer at a time: Open, Opened, binary frames, End. A stream that breaks
off without End failed, and the link is closed with the reason.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import heapq
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
    registry,
    sources,
    start_document,
)
from .protocol import messages
from .protocol.errors import FrameTooLarge, ProtocolError
from .protocol.session import Request, Session, common_version
from .stdio_socket import StdioSocket

CHUNK_BYTES = 1 << 20
ENTRIES_LIMIT = 1000
PAGE_BYTES = 1 << 20
"""A page of the longest names and targets still fits a frame, however JSON escapes it."""
GREETING_LIMIT_S = 20.0
IDLE_LIMIT_S = 600.0
"""Whoever asked has gone without a word: its host, or the network between, is down."""
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
    FilesLink(StdioSocket(messages.DATA_LIMIT_BYTES), settings).run()
    return 0


class FilesLink:
    """The session of one data connection."""

    def __init__(self, socket: StdioSocket, settings: configuration.Settings) -> None:
        self._socket = socket
        self._settings = settings
        self._root = settings.job_working_directory
        self._session = Session(messages.DATA_LIMIT_BYTES)

    def run(self) -> None:
        """Answer until the other end closes or breaks the protocol."""
        try:
            while True:
                limit_s = IDLE_LIMIT_S if self._session.is_greeted else GREETING_LIMIT_S
                for item in self._session.receive(self._socket.recv(limit_s)):
                    if isinstance(item, Request):
                        self._answer(item)
                self._flush()
        except ConnectionClosed:
            return  # how every connection ends
        except (ProtocolError, TimeoutError) as error:
            self._close(PROTOCOL_ERROR, str(error))
        except OSError as error:
            self._close(INTERNAL_ERROR, f"reading failed: {error.strerror}")

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
        except errors.ClientError as error:
            self._session.reply(request.id, messages.Error(error.code, str(error), error.transient))

    def _reply_to(self, message: Any) -> object:
        if isinstance(message, messages.Hello):
            return self._greet(message)
        if isinstance(message, messages.List):
            return list_directory(self._root, message)
        if isinstance(message, messages.Stat):
            with confinement.walk(self._root, message.tag, message.path) as found:
                name = message.path.rstrip("/").rpartition("/")[2]
                return messages.Stated(_entry(os.fsencode(name), found.status))
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
        with confinement.walk(self._root, message.tag, message.path) as found:
            descriptor = _open(found)
            size = found.status.st_size
            opened = messages.Opened(size_bytes=size, etag=_etag(found.status))
        try:
            self._session.reply(request_id, opened)
            self._flush()
            left = max(0, size - message.offset)
            length = left if message.length < 0 else min(left, message.length)
            self._session.notify(self._stream(descriptor, message.offset, length))
        finally:
            os.close(descriptor)

    def _stream(self, descriptor: int, offset: int, length: int) -> messages.End:
        """Send the bytes; they are hashed while they are sent."""
        digest, sent = hashlib.sha256(), 0
        with ThreadPoolExecutor(1) as hasher:
            for chunk in _chunks(descriptor, offset, length):
                hashed = hasher.submit(digest.update, chunk)
                self._socket.send(chunk)
                hashed.result()
                sent += len(chunk)
        return messages.End(bytes_sent=sent, sha256=digest.hexdigest())

    def _flush(self) -> None:
        for text in self._session.texts_to_send():
            self._socket.send(text)


def list_directory(root: str, message: messages.List) -> messages.Listed:
    """One page of a directory, in the order of its names' bytes."""
    after = _name(message.after_b64)
    limit = max(1, min(message.limit, ENTRIES_LIMIT))
    with confinement.walk(root, message.tag, message.path) as found:
        handle = _open(found, as_directory=True)
    try:
        with os.scandir(handle) as scan:
            names = (os.fsencode(entry.name) for entry in scan)
            page = heapq.nsmallest(limit + 1, (name for name in names if name > after))
        entries: list[messages.Entry] = []
        size = 0
        for name in page[:limit]:
            entry = _lstat(handle, name)
            if entry is None:
                continue  # removed meanwhile
            size += 2 * len(name) + len(entry.target)
            if entries and size > PAGE_BYTES // 4:
                return messages.Listed(tuple(entries), is_complete=False)
            entries.append(entry)
    finally:
        os.close(handle)
    return messages.Listed(tuple(entries), is_complete=len(page) <= limit)


def _open(found: confinement.Found, as_directory: bool = False) -> int:
    try:
        return found.open_directory() if as_directory else found.open_file()
    except OSError as error:
        raise errors.PathRefused(f"It can't be opened: {error.strerror}.") from None


def _chunks(descriptor: int, offset: int, length: int) -> Iterator[bytes]:
    """At most `length` bytes from `offset`; fewer if the file shrinks meanwhile."""
    while length > 0:
        chunk = os.pread(descriptor, min(CHUNK_BYTES, length), offset)
        if not chunk:
            return
        yield chunk
        offset += len(chunk)
        length -= len(chunk)


def _name(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise errors.InvalidRequest("after_b64 is not base64.") from None


def _lstat(directory: int, name: bytes) -> Optional[messages.Entry]:
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        is_link = stat.S_ISLNK(status.st_mode)
        target = os.readlink(name, dir_fd=directory) if is_link else b""
    except OSError:
        return None
    return _entry(name, status, target)


def _entry(name: bytes, status: os.stat_result, target: bytes = b"") -> messages.Entry:
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
    return messages.Entry(
        name=name.decode("utf-8", "replace"),
        name_b64=base64.b64encode(name).decode("ascii"),
        type=kinds.get(stat.S_IFMT(status.st_mode), "other"),
        size_bytes=status.st_size,
        mtime=status.st_mtime,
        target=target.decode("utf-8", "replace"),
    )


def _etag(status: os.stat_result) -> str:
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
