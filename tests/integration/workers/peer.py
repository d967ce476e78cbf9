"""A small real client to talk to: the library's WebSocket server with the shared session."""

from __future__ import annotations

import queue
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, unix_serve

from cluster_client.protocol import messages, session

WELCOME = messages.Welcome(version=1, client_version="t", host="n1", pid=1, outbox_id="o")

Answer = Callable[[Any], Any]


class SocketChannel:
    """A plain socket as a channel."""

    def __init__(self, own: socket.socket) -> None:
        self._socket = own
        self._ahead = b""
        self.is_closed = False

    def recv(self, size: int) -> bytes:
        if self._ahead:
            taken, self._ahead = self._ahead[:size], self._ahead[size:]
            return taken
        return self._socket.recv(size)

    def recv_into(self, space: memoryview) -> int:
        data = self.recv(len(space))
        space[: len(data)] = data
        return len(data)

    def unread(self, data: bytes) -> None:
        self._ahead = data + self._ahead

    def has_input(self) -> bool:
        return bool(self._ahead or select.select([self._socket], [], [], 0)[0])

    def send(self, data: Any) -> int:
        self._socket.sendall(data)
        return len(data)

    def settimeout(self, limit_s: float | None) -> None:
        self._socket.settimeout(limit_s)

    def gettimeout(self) -> float | None:
        return self._socket.gettimeout()

    def fileno(self) -> int:
        return self._socket.fileno()

    def shutdown(self, how: int) -> None:
        self._socket.shutdown(how)

    def stderr_tail(self) -> str:
        return ""

    def hang_up(self) -> None:
        self.abort()

    def abort(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            self.is_closed = True

    def close(self) -> None:
        self.abort()
        self._socket.close()
        self.is_closed = True


class Peer:
    """Answers requests by `answer`; None leaves them unanswered. Keeps what it received."""

    def __init__(self, answer: Answer) -> None:
        self.received: queue.Queue[Any] = queue.Queue()
        self.connections: queue.Queue[ServerConnection] = queue.Queue()
        self._answer = answer
        self._lock = threading.Lock()
        self._sessions: dict[ServerConnection, session.Session] = {}

    def handle(self, connection: ServerConnection) -> None:
        its_session = session.Session()
        self._sessions[connection] = its_session
        self.connections.put(connection)
        try:
            while True:
                frame = connection.recv(timeout=None)
                with self._lock:
                    items = its_session.receive(frame)
                for item in items:
                    self.received.put(item.message)
                    if isinstance(item, session.Request):
                        self._reply(connection, its_session, item)
        except ConnectionClosed:
            return

    def _reply(
        self, connection: ServerConnection, its_session: session.Session, item: session.Request
    ) -> None:
        answer = WELCOME if isinstance(item.message, messages.Hello) else self._answer(item.message)
        if answer is not None:
            its_session.reply(item.id, answer)
            self._flush(connection, its_session)

    def notify(self, connection: ServerConnection, message: Any) -> None:
        self._sessions[connection].notify(message)
        self._flush(connection, self._sessions[connection])

    @staticmethod
    def _flush(connection: ServerConnection, its_session: session.Session) -> None:
        for text in its_session.texts_to_send():
            connection.send(text)


@contextmanager
def serving(directory: Path, answer: Answer) -> Iterator[tuple[Peer, Callable[[], SocketChannel]]]:
    """A peer on a Unix socket, and a function that connects to it."""
    peer = Peer(answer)
    path = directory / "peer"
    with unix_serve(peer.handle, str(path), compression=None, ping_interval=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def connect() -> SocketChannel:
            own = socket.socket(socket.AF_UNIX)
            own.connect(str(path))
            return SocketChannel(own)

        try:
            yield peer, connect
        finally:
            server.shutdown()
            thread.join(10)
