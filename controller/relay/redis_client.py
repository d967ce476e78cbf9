"""The client of the relay's Redis, and what is said when that fails: never with its password."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from .. import conf, errors

SOCKET_LIMIT_S = 10.0
FAILURES = (redis.RedisError, OSError)


def new() -> redis.Redis:
    """A client of the relay's Redis; no connection is made yet. Raises Misconfigured."""
    try:
        return redis.Redis.from_url(
            conf.get().file_relay_url,
            socket_timeout=SOCKET_LIMIT_S,
            socket_connect_timeout=SOCKET_LIMIT_S / 2,
            socket_read_size=1 << 18,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,
        )
    except (ValueError, TypeError):
        # `from None`: that error may hold a piece of the password.
        raise errors.Misconfigured(
            "HPC_FILE_RELAY_URL is no URL of a Redis: it looks like redis://:password@host:6379/0,"
            " with what is special in the password written as %XX."
        ) from None


def unreachable(error: BaseException) -> str:
    """The sentence for a Redis with which nothing could begin."""
    return (
        f"The Redis of HPC_FILE_RELAY_URL can't be used ({_reason(error)}): see that it runs, and"
        " takes this host and the password."
    )


def _reason(error: BaseException) -> str:
    """What is wrong; not in the library's words, which may quote the URL."""
    if isinstance(error, exceptions.AuthenticationError | exceptions.NoPermissionError):
        return "it refuses the name or the password"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno and cause.errno > 0:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


@contextmanager
def told() -> Iterator[None]:
    """Raises TransferBroken where Redis fails within."""
    try:
        yield
    except FAILURES as error:
        raise errors.TransferBroken(
            f"The Redis of HPC_FILE_RELAY_URL failed during a transfer ({_reason(error)}): start it"
            " again."
        ) from error
