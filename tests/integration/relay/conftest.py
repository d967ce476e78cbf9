"""Both relays, and two ends that have met."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from pytest_django import Settings

from controller.relay import listening
from controller.relay.connection import Connection

LIMIT_S = 30.0
CHECKOUT = Path(__file__).parents[3]
SETTINGS = ("HPC_FILE_RELAY_URL", "HPC_IPC_UNIX_SOCKET")
Meet = Callable[[], tuple[Connection, Connection]]


@pytest.fixture
def socket_relay(settings: Settings, short_directory: Path) -> Iterator[Path]:
    """The relay on one host; the directory of its sockets, which must be left empty."""
    settings.HPC_FILE_RELAY_URL = ""
    settings.HPC_IPC_UNIX_SOCKET = str(short_directory / "relay")
    yield short_directory
    assert not list(short_directory.iterdir())


@pytest.fixture
def redis_relay(settings: Settings, redis_url: str) -> str:
    """The relay between hosts; its URL."""
    settings.HPC_FILE_RELAY_URL = redis_url
    return redis_url


@pytest.fixture(params=["socket", "redis"])
def relay(request: pytest.FixtureRequest) -> str:
    """Each relay in turn."""
    request.getfixturevalue(f"{request.param}_relay")
    return str(request.param)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


@pytest.fixture
def meet(pool: ThreadPoolExecutor) -> Iterator[Meet]:
    """Makes a web process's and a worker's end of one transfer."""
    made: list[Connection] = []

    def begin() -> tuple[Connection, Connection]:
        token = uuid4()
        with listening.listen(token) as listener:
            worker = pool.submit(listening.connect, token)
            made.append(listener.accept(LIMIT_S))
            made.append(worker.result(LIMIT_S))
        return made[-2], made[-1]

    yield begin
    for connection in made:
        connection.close()


@contextmanager
def peer(do: str, token: UUID, settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """A process that is one end; killed at the end."""
    argv = [sys.executable, "-m", "tests.integration.relay.peer", do, str(token)]
    own = {name: str(getattr(settings, name, "")) for name in SETTINGS}
    with subprocess.Popen(
        argv, cwd=CHECKOUT, env=os.environ | own, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as child:  # fmt: skip
        try:
            yield child
        finally:
            child.kill()


def said(child: subprocess.Popen[str]) -> str:
    """The next word of a peer."""
    assert child.stdout is not None
    return child.stdout.readline().strip()
