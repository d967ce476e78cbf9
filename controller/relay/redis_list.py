"""The relay between hosts: lists in a Redis that both ends can reach (HPC_FILE_RELAY_URL).

Rules:
- Each end has an inbox, and a list of credits: one for each piece that it may still send. Whoever
  takes a piece out grants another, so that no more than CREDITS pieces ever lie in Redis.
- Whoever closes says so in all lists that somebody may wait at, and drops its own inbox; the second
  one to close clears everything away. Every key expires; an end that was killed is noticed by the
  limit of its peer's waits.
- A command is never repeated: one that was carried out and not answered would double, or lose, a
  piece. What the connection to Redis breaks is broken.
- The URL may hold a password: it is in no message and no log.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Self
from uuid import UUID

import redis

from .. import conf, errors
from . import connection, proof, redis_client
from .frames import Bytes, Frame, Kind, head, json_of, limit_bytes, payload_of

CREDITS = 16
GRANTED_AT_ONCE = 4
POP_S = 1.0
"""How long one command waits at a list; far below SOCKET_LIMIT_S. Fractions need Redis 6."""
LISTENING_S = 60
FAREWELL_S = 60
GONE = b""
"""In an inbox or among credits: the other end has closed. No frame is empty."""
CREDIT = b"1"
WEB, WORKER = "web", "worker"


class Keys:
    """The names in Redis for one token, as seen by one end."""

    def __init__(self, token: UUID, side: str) -> None:
        base = f"hpc:relay:{token}"
        peer = WORKER if side == WEB else WEB
        self.side = side
        self.listening = f"{base}:listening"
        self.inbox, self.peer_inbox = f"{base}:{side}:inbox", f"{base}:{peer}:inbox"
        self.credits, self.peer_credits = f"{base}:{side}:credits", f"{base}:{peer}:credits"
        self.wake, self.peer_wake = f"{base}:{side}:wake", f"{base}:{peer}:wake"
        self.gone, self.peer_gone = f"{base}:{side}:gone", f"{base}:{peer}:gone"

    def all(self) -> list[str]:
        """Every name but the side's."""
        return [name for key, name in vars(self).items() if key != "side"]


class RedisListener:
    """Listens from the moment it is made."""

    def __init__(self, token: UUID) -> None:
        self._token = token
        self._keys = Keys(token, WEB)
        self._client = redis_client.new()
        self._is_open = True
        self._open()

    def accept(self, limit_s: float = connection.ACCEPT_LIMIT_S) -> RedisConnection:
        """The worker that proves itself first; what others say is dropped."""
        deadline = time.monotonic() + limit_s
        with self, redis_client.told():
            while (left_s := deadline - time.monotonic()) > 0:
                element = _pop(self._client, self._keys.inbox, left_s)
                if element is None:
                    continue
                if self._is_proof(element):
                    self._is_open = False
                    return RedisConnection(self._client, self._keys)
                self._open()
        raise connection.nobody_came(limit_s)

    def close(self) -> None:
        """Listen no more; a worker that comes later is told."""
        if not self._is_open:
            return
        self._is_open = False
        _farewell(self._client, self._keys)
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        """Let one worker in."""
        try:
            self._client.set(self._keys.listening, "1", ex=LISTENING_S)
        except redis_client.FAILURES as error:
            self._client.close()
            raise errors.Unavailable(redis_client.unreachable(error)) from error

    def _is_proof(self, element: bytes) -> bool:
        with suppress(errors.TransferBroken):
            frame = _frame_of(element)
            return frame.kind is Kind.HELLO and proof.is_proof(
                self._token, json_of(frame).get("proof")
            )
        return False


def connect(token: UUID) -> RedisConnection:
    """Meet the web process that listens for `token`. Raises Unavailable."""
    keys = Keys(token, WORKER)
    client = redis_client.new()
    try:
        is_expected = client.delete(keys.listening)  # which lets one in, of however many
    except redis_client.FAILURES as error:
        client.close()
        raise errors.Unavailable(redis_client.unreachable(error)) from error
    if not is_expected:
        client.close()
        raise errors.Unavailable(
            "Nobody waits for this transfer in the Redis of HPC_FILE_RELAY_URL: whoever asked for"
            " the file has gone, another worker was first, or the web process uses another Redis"
            " (or none): see that the setting is the same for both."
        )
    found = RedisConnection(client, keys)
    try:
        found.send(Kind.HELLO, payload_of({"proof": proof.proof(token)}))
    except errors.HpcError:
        found.close()
        raise
    return found


class RedisConnection:
    """Frames over lists."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        # Threads of this connection alone: those of the loop are few, and all may wait.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="hpc-relay")
        self._usage = connection.Usage(partial(_release, client, self._threads))
        self._is_peer_gone = False
        self._taken = 0
        with redis_client.told():
            self._grant(CREDITS)

    def send(self, kind: Kind, payload: Bytes = b"") -> None:
        head(kind, len(payload))  # judges the size
        with self._usage, redis_client.told():
            if kind is Kind.DATA:
                self._take_credit(conf.get().transfer_stall_s)
            line = self._client.pipeline(transaction=False)
            line.rpush(self._keys.peer_inbox, b"".join((kind.value, payload)))
            line.expire(self._keys.peer_inbox, _kept_s())
            line.exists(self._keys.peer_gone)
            if line.execute()[-1]:
                self._client.delete(self._keys.peer_inbox)
                raise connection.gone()

    def receive(self, limit_s: float) -> Frame:
        deadline = time.monotonic() + limit_s
        with self._usage, redis_client.told():
            while True:
                element = self._next(self._keys.inbox, deadline)
                if element:
                    return self._received(_frame_of(element))
                if self._usage.is_ended or self._is_peer_gone:
                    raise connection.gone()
                if time.monotonic() >= deadline:
                    raise connection.stalled(limit_s)

    async def asend(self, kind: Kind, payload: Bytes = b"") -> None:
        with self._usage:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, self.send, kind, payload)

    async def areceive(self, limit_s: float) -> Frame:
        with self._usage:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self.receive, limit_s)

    def wait_gone(self, limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        with suppress(errors.TransferBroken), self._usage, redis_client.told():
            while not self._usage.is_ended and not self._is_peer_gone:
                if time.monotonic() >= deadline:
                    return False
                self._next(self._keys.wake, deadline)
        return True

    def close(self) -> None:
        if not self._usage.end():
            return
        # In a thread: who closes may be an event loop, or the garbage collection in one.
        arguments = (self._client, self._keys, self._usage)
        thread = threading.Thread(target=_take_leave, args=arguments, name="hpc-relay-close")
        try:
            thread.start()
        except RuntimeError:  # the interpreter is about to end
            _take_leave(*arguments)

    def __del__(self) -> None:
        self.close()

    def _next(self, name: str, deadline: float) -> bytes | None:
        """The next of one of our lists, waiting POP_S at most; None if there is none.

        Notes whether the other end is gone; what it left in the list still comes.
        """
        left_s = deadline - time.monotonic()
        element = None if self._is_peer_gone else _pop(self._client, name, left_s)
        if element:
            return element
        if element == GONE or self._client.exists(self._keys.peer_gone):
            self._is_peer_gone = True
            return _popped(self._client.lpop(name))
        return None

    def _take_credit(self, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while self._next(self._keys.credits, deadline) is None or self._is_peer_gone:
            if self._usage.is_ended or self._is_peer_gone:
                raise connection.gone()
            if time.monotonic() >= deadline:
                raise connection.stalled(limit_s)

    def _received(self, frame: Frame) -> Frame:
        if frame.kind is Kind.DATA:
            self._taken += 1
            if self._taken == GRANTED_AT_ONCE:
                self._taken = 0
                self._grant(GRANTED_AT_ONCE)
        return frame

    def _grant(self, count: int) -> None:
        line = self._client.pipeline(transaction=False)
        line.rpush(self._keys.peer_credits, *[CREDIT] * count)
        line.expire(self._keys.peer_credits, _kept_s())
        line.execute()


def _pop(client: redis.Redis, name: str, limit_s: float) -> bytes | None:
    found: Any = client.blpop([name], max(0.01, min(limit_s, POP_S)))  # 0 would be for ever
    return None if found is None else _popped(found[1])


def _popped(element: Any) -> bytes | None:
    return element if isinstance(element, bytes) else None


def _frame_of(element: bytes) -> Frame:
    try:
        kind = Kind(element[:1])
    except ValueError:
        raise errors.TransferBroken("What came is no frame of a transfer.") from None
    if len(element) - 1 > limit_bytes(kind):
        raise errors.TransferBroken(f"A frame {kind.name} of {len(element) - 1} bytes came.")
    return Frame(kind, memoryview(element)[1:])


def _take_leave(client: redis.Redis, keys: Keys, usage: connection.Usage) -> None:
    try:
        _farewell(client, keys)
    finally:
        usage.leave()


def _release(client: redis.Redis, threads: ThreadPoolExecutor) -> None:
    threads.shutdown(wait=False)
    client.close()


def _farewell(client: redis.Redis, keys: Keys) -> None:
    """Wake everybody at both ends, and leave nothing behind for long."""
    line = client.pipeline(transaction=True)
    line.set(keys.gone, "1", ex=FAREWELL_S)
    line.delete(keys.inbox, keys.listening)
    for name in (keys.inbox, keys.peer_inbox, keys.wake, keys.peer_wake):
        line.rpush(name, GONE)
        line.expire(name, FAREWELL_S)
    for name in (keys.credits, keys.peer_credits):
        line.lpush(name, GONE)
        line.expire(name, FAREWELL_S)
    line.exists(keys.peer_gone)
    with suppress(*redis_client.FAILURES):  # the other end has its limits
        if line.execute()[-1]:
            client.delete(*keys.all())


def _kept_s() -> int:
    return int(conf.get().transfer_stall_s) + FAREWELL_S
