"""The socket: private from the first moment, gone at the end, and strangers get nowhere."""

import os
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from pytest_django import Settings

from controller import errors
from controller.relay import listening, proof, unix_socket
from controller.relay.frames import DATA_LIMIT_BYTES, Kind, head, payload_of

from .conftest import LIMIT_S, peer, said

pytestmark = pytest.mark.usefixtures("socket_relay")
WRONG = payload_of({"proof": "0" * 64})


def test_the_socket_is_ours_alone_whatever_the_umask(socket_relay: Path) -> None:
    before = os.umask(0)
    try:
        with listening.listen(uuid4()):
            (name,) = socket_relay.iterdir()
            assert stat.S_IMODE(name.stat().st_mode) == 0o600
            assert stat.S_ISSOCK(name.stat().st_mode)
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    "words",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        head(Kind.HELLO, len(WRONG)) + WRONG,
        head(Kind.HELLO, 2) + b"[]",
        head(Kind.HELLO, 0),
        head(Kind.DATA, DATA_LIMIT_BYTES),
        b"H\xff\xff\xff\xff",
        b"H\0",
    ],
    ids=["silent", "rubbish", "wrong proof", "list", "empty", "data", "oversized", "half"],
)
def test_a_stranger_is_dropped_and_the_right_one_still_heard(
    words: bytes, pool: ThreadPoolExecutor
) -> None:
    token = uuid4()
    listener = listening.listen(token)
    strangers = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for stranger in strangers:
        stranger.connect(str(unix_socket.path_of(token)))
        stranger.sendall(words)
    strangers[0].close()
    worker = pool.submit(listening.connect, token)
    web = listener.accept(LIMIT_S)
    worker.result(LIMIT_S).send(Kind.START)
    assert web.receive(LIMIT_S).kind is Kind.START
    for stranger in strangers[1:]:
        stranger.settimeout(LIMIT_S)
        try:
            assert stranger.recv(1) == b""
        except ConnectionResetError:
            assert words
        stranger.close()
    web.close()


def test_a_crowd_of_silent_strangers_keeps_nobody_out(pool: ThreadPoolExecutor) -> None:
    token = uuid4()
    listener = listening.listen(token)
    accepting = pool.submit(listener.accept, LIMIT_S)
    strangers = [socket.socket(socket.AF_UNIX) for _ in range(4 * unix_socket.STRANGERS)]
    for stranger in strangers:
        stranger.connect(str(unix_socket.path_of(token)))
    worker = listening.connect(token)
    accepting.result(LIMIT_S).close()
    worker.close()
    for stranger in strangers:
        stranger.close()


def test_a_proof_that_comes_in_bits_counts(pool: ThreadPoolExecutor) -> None:
    token = uuid4()
    listener = listening.listen(token)
    accepting = pool.submit(listener.accept, LIMIT_S)
    payload = payload_of({"proof": proof.proof(token)})
    worker = socket.socket(socket.AF_UNIX)
    worker.connect(str(unix_socket.path_of(token)))
    for byte in head(Kind.HELLO, len(payload)) + payload:
        worker.sendall(bytes([byte]))
    accepting.result(LIMIT_S).close()
    worker.close()


def test_another_user_is_hung_up_on(
    settings: Settings, socket_relay: Path, pool: ThreadPoolExecutor
) -> None:
    assert os.geteuid() == 0, "Only root may become another user: run this as `make test`."
    token = uuid4()
    socket_relay.chmod(0o755)
    listener = listening.listen(token)
    with peer("knock", token, settings) as child:
        assert said(child) == "refused"
    unix_socket.path_of(token).chmod(0o666)
    accepting = pool.submit(listener.accept, LIMIT_S)
    with peer("knock", token, settings) as child:
        assert [said(child), said(child)] == ["connected", "dropped"]
    worker = listening.connect(token)
    accepting.result(LIMIT_S).close()
    worker.close()


def test_a_worker_proves_itself_to_no_other_user(settings: Settings, socket_relay: Path) -> None:
    assert os.geteuid() == 0, "Only root may become another user: run this as `make test`."
    token = uuid4()
    socket_relay.chmod(0o777)
    with peer("listen", token, settings) as child:
        assert said(child) == "listening"
        with pytest.raises(errors.Unavailable, match="another user"):
            listening.connect(token)
        child.communicate(timeout=LIMIT_S)


def test_a_path_that_is_too_long_is_told(settings: Settings) -> None:
    settings.HPC_IPC_UNIX_SOCKET = "/tmp/" + "x" * 100
    with pytest.raises(errors.Misconfigured, match="35 bytes too long"):
        listening.listen(uuid4())


def test_a_directory_that_is_missing_is_told(settings: Settings, short_directory: Path) -> None:
    settings.HPC_IPC_UNIX_SOCKET = str(short_directory / "none" / "relay")
    with pytest.raises(errors.Misconfigured, match="No such file"):
        listening.listen(uuid4())


def test_what_is_there_already_is_not_taken_over(socket_relay: Path) -> None:
    token = uuid4()
    path = unix_socket.path_of(token)
    path.write_text("somebody's")
    with pytest.raises(errors.Misconfigured, match="in use"):
        listening.listen(token)
    assert path.read_text() == "somebody's"
    path.unlink()


def test_a_socket_whose_process_died_is_told_and_cleared_away(socket_relay: Path) -> None:
    token = uuid4()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(unix_socket.path_of(token)))
    dead.close()
    with pytest.raises(errors.Unavailable, match="PrivateTmp"):
        listening.connect(token)
    assert not unix_socket.path_of(token).exists()


def test_a_listener_that_takes_nobody_in_is_given_up(pool: ThreadPoolExecutor) -> None:
    token = uuid4()
    with listening.listen(token):
        waiting = []
        with pytest.raises(errors.Unavailable, match="does not take connections"):
            while True:
                waiting.append(unix_socket.connect(token, 0.3))
        for connection in waiting:
            connection.close()
