"""The daemon's ear: WebSocket connections on its Unix socket, and `GET /status` for people."""

from __future__ import annotations

import http
import json
import logging
import socket
import threading
from typing import Any, Callable, Optional, Union

from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, unix_serve

from . import handlers
from .hub import Hub
from .protocol import messages

logger = logging.getLogger(__name__)
_library_logger = logging.getLogger(f"{__name__}.websockets")
# It reports each look at the socket as a failed handshake, with a traceback; links log themselves.
_library_logger.setLevel(logging.CRITICAL)

CONTROL_PATH = "/control"
STATUS_PATH = "/status"
PING_INTERVAL_S = 20.0
PING_LIMIT_S = 40.0
"""The server judges liveness much faster; this only clears away what it left behind."""
CLOSE_LIMIT_S = 2.0

Status = Callable[[], dict[str, Any]]


class ConnectionSocket:
    """A connection of the library, as handlers want it."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

    def recv(self, timeout: Optional[float] = None) -> Union[str, bytes]:
        return self._connection.recv(timeout)

    def send(self, message: Union[str, bytes]) -> None:
        self._connection.send(message)

    def close(self, code: int = 1000, reason: str = "") -> None:
        self._connection.close(code, reason)

    def drop(self) -> None:
        # Shuts the socket down before it takes any lock: a stuck sender lets go at once.
        self._connection.close_socket()


class ControlServer:
    """Accepts on one listening socket, which may be replaced."""

    def __init__(self, hub: Hub, status: Status) -> None:
        self._hub = hub
        self._status = status
        self._server: Optional[Server] = None

    def listen(self, listener: socket.socket) -> None:
        """Accept on `listener` from now on, and no longer on the one before."""
        server = unix_serve(
            self._handle,
            sock=listener,
            compression=None,
            max_size=messages.CONTROL_LIMIT_BYTES,
            process_request=self._process_request,
            ping_interval=PING_INTERVAL_S,
            ping_timeout=PING_LIMIT_S,
            close_timeout=CLOSE_LIMIT_S,
            server_header=None,
            logger=_library_logger,
        )
        self.stop()
        self._server = server
        threading.Thread(target=server.serve_forever, name="accept", daemon=True).start()

    def stop(self) -> None:
        """Accept no more; connections go on."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _handle(self, connection: ServerConnection) -> None:
        try:
            handlers.serve(self._hub, ConnectionSocket(connection))
        except Exception:
            logger.exception("link_failed")
            raise

    def _process_request(
        self, connection: ServerConnection, request: Request
    ) -> Optional[Response]:
        if request.path == CONTROL_PATH:
            return None
        if request.path == STATUS_PATH:
            return connection.respond(http.HTTPStatus.OK, json.dumps(self._status()) + "\n")
        return connection.respond(http.HTTPStatus.NOT_FOUND, f"No such path: {request.path}\n")
