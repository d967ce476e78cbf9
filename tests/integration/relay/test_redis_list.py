"""The list: nothing stays in Redis, the password in no message, and what breaks is told."""

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
import redis
from pytest_django import Settings

from controller import errors
from controller.relay import listening, redis_list
from controller.relay.frames import JSON_LIMIT_BYTES, Kind, payload_of
from ops import services

from .conftest import LIMIT_S, Meet

SECRET = "s3cr3t-w0rd"


def test_nothing_stays_once_both_have_gone(redis_relay: str, meet: Meet) -> None:
    client = redis.Redis.from_url(redis_relay)
    web, worker = meet()
    for _ in range(9):
        worker.send(Kind.DATA, b"x" * 1000)
        web.receive(LIMIT_S)
    worker.send(Kind.DATA, b"never read")
    assert all(client.ttl(name) > 0 for name in client.scan_iter())
    worker.close()
    assert web.wait_gone(LIMIT_S)
    # Where the other end was killed, nobody but Redis clears away what is left.
    assert all(client.ttl(name) > 0 for name in client.scan_iter())
    web.close()
    deadline = time.monotonic() + LIMIT_S
    while client.dbsize() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert client.keys() == []
    client.close()


@pytest.mark.parametrize(
    "element",
    [b"?", b"D" + b"x" * 100, b"H[]", b"H", b"H" + payload_of({"proof": "0" * 64})],
)
def test_a_stranger_is_dropped_and_the_right_one_still_heard(
    redis_relay: str, pool: ThreadPoolExecutor, element: bytes
) -> None:
    token = uuid4()
    keys = redis_list.Keys(token, redis_list.WORKER)
    client = redis.Redis.from_url(redis_relay)
    listener = listening.listen(token)
    assert client.delete(keys.listening)
    client.rpush(keys.peer_inbox, element)
    accepting = pool.submit(listener.accept, LIMIT_S)
    while not client.exists(keys.listening):
        time.sleep(0.02)
    worker = listening.connect(token)
    web = accepting.result(LIMIT_S)
    worker.send(Kind.START)
    assert web.receive(LIMIT_S).kind is Kind.START
    for closing in (client, web, worker):
        closing.close()


@pytest.mark.parametrize(
    ("element", "words"),
    [(b"S" + b" " * (JSON_LIMIT_BYTES + 1), "START of 65537 bytes"), (b"?", "no frame")],
)
def test_what_is_no_frame_or_too_long_for_one_breaks_the_transfer(
    redis_relay: str, pool: ThreadPoolExecutor, element: bytes, words: str
) -> None:
    token = uuid4()
    client = redis.Redis.from_url(redis_relay)
    listener = listening.listen(token)
    coming = pool.submit(listening.connect, token)
    web = listener.accept(LIMIT_S)
    client.rpush(redis_list.Keys(token, redis_list.WEB).inbox, element)
    with pytest.raises(errors.TransferBroken, match=words):
        web.receive(LIMIT_S)
    for closing in (client, web, coming.result(LIMIT_S)):
        closing.close()


def test_a_worker_that_comes_when_the_listener_has_left_is_told(redis_relay: str) -> None:
    token = uuid4()
    listener = listening.listen(token)
    worker = listening.connect(token)
    listener.close()
    with pytest.raises(errors.TransferBroken, match="gone"):
        worker.send(Kind.START)
    worker.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"redis://:{SECRET}@127.0.0.1:1/0", "Connection refused"),
        (f"redis://:{SECRET}/x@127.0.0.1:6379/0", "special in the password"),
        (f"unix://:{SECRET}@/nonexistent/redis.sock", "No such file"),
        (f"redis://:{SECRET}@name.invalid:6379/0", "can't be used"),
    ],
)
def test_a_redis_out_of_reach_is_told_without_the_password(
    settings: Settings, url: str, words: str
) -> None:
    settings.HPC_FILE_RELAY_URL = url
    for begin in (listening.listen, listening.connect):
        with pytest.raises(errors.HpcError, match=words) as caught:
            begin(uuid4())
        assert SECRET not in str(caught.value)
        assert caught.value.__cause__ is None or SECRET not in str(caught.value.__cause__)


def test_a_wrong_password_is_told(settings: Settings, redis_server: services.Redis) -> None:
    settings.HPC_FILE_RELAY_URL = f"redis://:{SECRET}@127.0.0.1:{redis_server.port}/0"
    with pytest.raises(errors.Unavailable, match="refuses the name or the password") as caught:
        listening.listen(uuid4())
    assert SECRET not in str(caught.value)


def test_a_redis_that_dies_breaks_the_transfer(
    settings: Settings, own_redis: services.Redis, meet: Meet, pool: ThreadPoolExecutor
) -> None:
    settings.HPC_FILE_RELAY_URL = own_redis.url
    web, worker = meet()
    waiting = pool.submit(web.receive, LIMIT_S)
    own_redis.stop()
    assert isinstance(waiting.exception(LIMIT_S), errors.TransferBroken)
    with pytest.raises(errors.TransferBroken, match="Redis of HPC_FILE_RELAY_URL failed"):
        worker.send(Kind.DATA, b"x")
    assert worker.wait_gone(LIMIT_S)
