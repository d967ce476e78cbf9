"""How the two ends of a transfer find each other, as HPC_FILE_RELAY_URL says."""

from __future__ import annotations

from uuid import UUID

from . import unix_socket
from .connection import CONNECT_LIMIT_S, Connection, Listener


def listen(token: UUID) -> Listener:
    """Wait, from now on, for the worker of `token`; for web processes."""
    return unix_socket.UnixListener(token)


def connect(token: UUID, limit_s: float = CONNECT_LIMIT_S) -> Connection:
    """Meet the web process of `token` and prove oneself; for workers.

    Raises Unavailable with a sentence if nobody waits there.
    """
    return unix_socket.connect(token, limit_s)
