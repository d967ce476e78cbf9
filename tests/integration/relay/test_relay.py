"""What holds for either relay: bytes as they were, bounded, and nobody waits for one who went."""

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from pytest_django import Settings

from controller import errors
from controller.relay import listening
from controller.relay.connection import Connection
from controller.relay.frames import DATA_LIMIT_BYTES, Kind, json_of, payload_of
from controller.relay.redis_list import CREDITS

from .conftest import LIMIT_S, Meet, peer, said

pytestmark = pytest.mark.usefixtures("relay")
BIG = os.urandom(DATA_LIMIT_BYTES)
SENT = [
    (Kind.START, b'{"size_bytes":5}'),
    (Kind.DATA, b""),
    (Kind.DATA, b"x"),
    (Kind.DATA, BIG),
    (Kind.END, b""),
]


def received(connection: Connection) -> list[tuple[Kind, bytes]]:
    frames = [connection.receive(LIMIT_S) for _ in SENT]
    return [(frame.kind, bytes(frame.payload)) for frame in frames]


def send_all(connection: Connection) -> None:
    for kind, payload in SENT:
        connection.send(kind, memoryview(payload))


async def areceived(connection: Connection) -> list[tuple[Kind, bytes]]:
    frames = [await connection.areceive(LIMIT_S) for _ in SENT]
    return [(frame.kind, bytes(frame.payload)) for frame in frames]


async def asend_all(connection: Connection) -> None:
    for kind, payload in SENT:
        await connection.asend(kind, payload)


def test_frames_go_both_ways_as_they_were(meet: Meet, pool: ThreadPoolExecutor) -> None:
    web, worker = meet()
    for one, other in ((web, worker), (worker, web)):
        sending = pool.submit(send_all, one)
        assert received(other) == SENT
        sending.result(LIMIT_S)


def test_an_end_in_asyncio_meets_one_in_threads(meet: Meet, pool: ThreadPoolExecutor) -> None:
    web, worker = meet()
    sending = pool.submit(send_all, worker)
    assert asyncio.run(areceived(web)) == SENT
    sending.result(LIMIT_S)
    receiving = pool.submit(received, worker)
    asyncio.run(asend_all(web))
    assert receiving.result(LIMIT_S) == SENT


def test_two_transfers_at_once_do_not_mix(meet: Meet, pool: ThreadPoolExecutor) -> None:
    pairs = [meet(), meet()]
    for number, (web, _) in enumerate(pairs):
        web.send(Kind.DATA, bytes([number]) * 1000)
    for number, (_, worker) in enumerate(pairs):
        assert bytes(worker.receive(LIMIT_S).payload) == bytes([number]) * 1000


def test_a_slow_reader_holds_the_writer_up(
    meet: Meet, pool: ThreadPoolExecutor, relay: str
) -> None:
    web, worker = meet()
    sent = [0]

    def pour() -> None:
        for _ in range(3 * CREDITS):
            worker.send(Kind.DATA, BIG[: 1 << 20])
            sent[0] += 1

    sending = pool.submit(pour)
    assert web.receive(LIMIT_S).kind is Kind.DATA
    before = -1
    while sent[0] != before:  # until it stands still
        before = sent[0]
        assert not worker.wait_gone(0.3)
    assert sent[0] <= (CREDITS + 1 if relay == "redis" else 3)
    for _ in range(3 * CREDITS - 1):
        web.receive(LIMIT_S)
    sending.result(LIMIT_S)


def pours(connection: Connection) -> None:
    while True:
        connection.send(Kind.DATA, BIG[: 1 << 20])


def receives(connection: Connection) -> None:
    connection.receive(LIMIT_S)


def apours(connection: Connection) -> None:
    async def pour() -> None:
        while True:
            await connection.asend(Kind.DATA, BIG[: 1 << 20])

    asyncio.run(pour())


def areceives(connection: Connection) -> None:
    asyncio.run(connection.areceive(LIMIT_S))


def watches(connection: Connection) -> None:
    assert connection.wait_gone(LIMIT_S)
    raise errors.TransferBroken("seen")


waits = pytest.mark.parametrize("wait", [pours, receives, apours, areceives, watches])


def broken(future: Future[None]) -> None:
    assert isinstance(future.exception(LIMIT_S), errors.TransferBroken)


@waits
def test_who_goes_wakes_the_other_and_whoever_waits_here(
    meet: Meet, pool: ThreadPoolExecutor, wait: Callable[[Connection], None]
) -> None:
    for one, other in (meet(), reversed(meet())):
        there, here = pool.submit(wait, other), pool.submit(wait, one)
        assert not one.wait_gone(0.2)
        one.close()
        broken(there)
        broken(here)
        one.close()
        with pytest.raises(errors.TransferBroken):
            one.receive(LIMIT_S)


def test_what_was_said_before_leaving_is_still_heard(meet: Meet) -> None:
    web, worker = meet()
    worker.send(Kind.DATA, b"x")
    worker.send(Kind.ERROR, payload_of({"message": "The disk is full."}))
    worker.close()
    assert web.wait_gone(LIMIT_S)
    with pytest.raises(errors.TransferBroken):
        web.send(Kind.DATA, b"y")
    assert bytes(web.receive(LIMIT_S).payload) == b"x"
    assert json_of(web.receive(LIMIT_S)) == {"message": "The disk is full."}
    with pytest.raises(errors.TransferBroken, match="gone"):
        web.receive(LIMIT_S)


def test_an_end_that_nobody_holds_any_more_is_gone(pool: ThreadPoolExecutor) -> None:
    token = uuid4()
    with listening.listen(token) as listener:
        coming = pool.submit(listening.connect, token)
        web = listener.accept(LIMIT_S)
    worker: Any = coming.result(LIMIT_S)
    del coming, worker
    gc.collect()
    assert web.wait_gone(LIMIT_S)
    web.close()


def test_nothing_that_moves_is_told_after_the_limit(
    meet: Meet, settings: Settings, relay: str
) -> None:
    settings.HPC_TRANSFER_STALL_S = 0.5
    web, worker = meet()
    with pytest.raises(errors.Timeout, match="Nothing moved"):
        web.receive(0.3)
    with pytest.raises(errors.Timeout, match="Nothing moved"):
        asyncio.run(web.areceive(0.3))
    with pytest.raises(errors.Timeout, match=r"0\.5 s"):
        pours(worker)
    with suppress(errors.Timeout):  # what came in part lets nothing come after it
        while web.receive(0.3).kind is Kind.DATA:
            pass
    if relay == "socket":
        with pytest.raises(errors.TransferBroken):
            worker.send(Kind.END)


@pytest.mark.parametrize("do", ["hold", "pour"])
def test_a_peer_that_is_killed_is_noticed(settings: Settings, relay: str, do: str) -> None:
    token = uuid4()
    with listening.listen(token) as listener, peer(do, token, settings) as child:
        web = listener.accept(LIMIT_S)
        assert said(child) == "connected"
        child.send_signal(signal.SIGKILL)
        child.wait(LIMIT_S)
        settings.HPC_TRANSFER_STALL_S = 1
        with pytest.raises((errors.TransferBroken, errors.Timeout)) as caught:
            while True:  # what it had sent still comes
                web.receive(LIMIT_S if relay == "socket" else 1)
        assert isinstance(caught.value, errors.TransferBroken) is (relay == "socket")
        with pytest.raises((errors.TransferBroken, errors.Timeout)):
            pours(web)
        web.close()


def test_a_peer_process_hears_that_we_went(settings: Settings) -> None:
    token = uuid4()
    with listening.listen(token) as listener, peer("pour", token, settings) as child:
        web = listener.accept(LIMIT_S)
        assert said(child) == "connected"
        web.receive(LIMIT_S)
        web.close()
        assert said(child) == "gone"


def test_a_token_lets_one_worker_in(pool: ThreadPoolExecutor) -> None:
    token = uuid4()
    with listening.listen(token) as listener:
        worker = listening.connect(token)
        web = listener.accept(LIMIT_S)
        with pytest.raises(errors.Unavailable, match="has gone"):
            listening.connect(token)
    worker.send(Kind.DATA, b"x")
    assert bytes(web.receive(LIMIT_S).payload) == b"x"
    web.close()
    worker.close()


def test_of_many_workers_that_come_at_once_one_is_heard(pool: ThreadPoolExecutor) -> None:
    token = uuid4()
    barrier = threading.Barrier(6)

    def come() -> bool:
        barrier.wait(LIMIT_S)
        try:
            worker = listening.connect(token)
            worker.send(Kind.START)
            is_taken = worker.receive(LIMIT_S).kind is Kind.ACK
            worker.close()
        except errors.Unavailable:
            return False
        return is_taken

    with listening.listen(token) as listener:
        coming = [pool.submit(come) for _ in range(6)]
        web = listener.accept(LIMIT_S)
    assert web.receive(LIMIT_S).kind is Kind.START
    web.send(Kind.ACK)
    assert [future.result(LIMIT_S) for future in coming].count(True) == 1
    web.close()


def test_nobody_who_comes_is_told_with_what_to_do() -> None:
    token = uuid4()
    with pytest.raises(errors.Timeout, match="-Q files"):
        listening.listen(token).accept(0.2)
    with pytest.raises(errors.Unavailable, match="HPC_FILE_RELAY_URL"):
        listening.connect(token)
    listening.listen(token).close()
    with pytest.raises(errors.Unavailable, match="has gone"):
        listening.connect(token)


def test_a_payload_over_the_limit_is_not_sent(meet: Meet) -> None:
    web, worker = meet()
    with pytest.raises(ValueError, match="too much"):
        web.send(Kind.DATA, bytes(DATA_LIMIT_BYTES + 1))
    web.send(Kind.DATA, b"x")
    assert bytes(worker.receive(LIMIT_S).payload) == b"x"
