"""How the two ends of a transfer find each other, as HPC_FILE_RELAY_URL says."""

from __future__ import annotations

from uuid import UUID

from .. import conf
from . import redis_list, unix_socket
from .connection import CONNECT_LIMIT_S, Connection, Listener


def listen(token: UUID) -> Listener:
    """Wait, from now on, for the worker of `token`; for web processes."""
    if conf.get().file_relay_url:
        return redis_list.RedisListener(token)
    return unix_socket.UnixListener(token)


def connect(token: UUID, limit_s: float = CONNECT_LIMIT_S) -> Connection:
    """Meet the web process of `token` and prove oneself; for workers.

    Raises Unavailable with a sentence if nobody waits there.
    """
    if conf.get().file_relay_url:
        return redis_list.connect(token)
    return unix_socket.connect(token, limit_s)
