"""The local carrier runs real processes, as a fresh login would, and leaves none behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ops import processes
from workers.links import bridge, carriers, errors

SHOW = "import json,os,sys; print(json.dumps([dict(os.environ), os.getcwd(), os.getsid(0)]))"


def everything(channel: carriers.LocalChannel) -> bytes:
    channel.settimeout(10)
    data = b""
    while piece := channel.recv(4096):
        data += piece
    return data


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_the_environment_is_that_of_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPC_SECRET_KEYS", "a secret")
    monkeypatch.setenv("SBATCH_ACCOUNT", "someone's")
    channel = carriers.LocalCarrier({"HPC_ALLOW_ROOT": "1"}).open([sys.executable, "-c", SHOW])
    environment, directory, session = json.loads(everything(channel))
    channel.close()
    environment.pop("LC_CTYPE", None)  # Python sets it for itself
    wanted = {"HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "HPC_ALLOW_ROOT"}
    assert set(environment) == wanted
    assert directory == environment["HOME"]
    assert session != os.getsid(0)


def test_bytes_go_both_ways_and_what_was_read_too_far_is_kept() -> None:
    channel = carriers.LocalCarrier().open(["cat"])
    channel.settimeout(10)
    channel.send(b"0123456789" * 1000)
    got = channel.recv(3)
    assert got == b"012"
    channel.unread(got)
    assert channel.recv(10) + channel.recv(7) == b"0123456789"
    channel.unread(b"ab")
    space = memoryview(bytearray(5))
    count = channel.recv_into(space)
    count += channel.recv_into(space[count:])
    assert bytes(space[:count]) == b"ab012"
    channel.close()


def test_close_kills_the_command_with_what_it_started() -> None:
    channel = carriers.LocalCarrier().open(["/bin/sh", "-c", "sleep 60 & echo $!; wait"])
    channel.settimeout(10)
    child = int(channel.recv(100))
    assert is_alive(child)
    begun_at = time.monotonic()
    channel.close()
    channel.close()
    assert time.monotonic() - begun_at < 10
    assert processes.wait_until(lambda: not is_alive(child), 5)


class Unkillable(subprocess.Popen[bytes]):
    """As a process is that waits for a file server that is gone."""

    def wait(self, timeout: float | None = None) -> int:
        assert timeout is not None, "waited without a limit"
        raise subprocess.TimeoutExpired("sleep", timeout)


def test_a_process_that_outlives_its_kill_is_left_behind_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ours, theirs = socket.socketpair()
    process = Unkillable(["sleep", "60"], stderr=subprocess.PIPE, start_new_session=True)
    theirs.close()
    carriers.LocalChannel(ours, process).close()
    assert [record.message for record in caplog.records] == ["channel.not_reaped"]
    assert ours.fileno() == -1
    subprocess.Popen.wait(process, 5)


def test_stderr_is_drained_and_its_tail_is_kept() -> None:
    script = "for i in $(seq 20000); do echo line $i >&2; done; echo the end >&2"
    channel = carriers.LocalCarrier().open(["/bin/sh", "-c", script])
    assert everything(channel) == b""
    assert processes.wait_until(lambda: channel.stderr_tail().endswith("the end"), 5)
    assert len(channel.stderr_tail()) <= carriers.STDERR_BYTES
    channel.close()


def test_a_command_that_is_not_there_is_told() -> None:
    with pytest.raises(errors.CannotConnect, match="/no/such"):
        carriers.LocalCarrier().open(["/no/such/program"])


def installed(directory: Path, text: str = 'print(\'HPC-BRIDGE 1 {"status": "none"}\')') -> str:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "client.py").write_text(text)
    return str(directory)


def marker(path: str, python: str = "") -> bridge.Marker:
    installation = bridge.Installation(path, python)
    channel, said = bridge.open_client(carriers.LocalCarrier(), installation, ("dial", "a.1"), 20)
    channel.close()
    return said


def test_a_missing_client_is_told_and_left_to_a_person(tmp_path: Path) -> None:
    with pytest.raises(errors.CannotConnect, match="no whole client") as caught:
        marker(str(tmp_path))
    assert not caught.value.transient


def test_a_missing_python_is_told_and_left_to_a_person(tmp_path: Path) -> None:
    with pytest.raises(errors.CannotConnect, match="python9") as caught:
        marker(installed(tmp_path), "python9")
    assert not caught.value.transient


def test_a_python_that_is_too_old_is_none(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    with pytest.raises(errors.CannotConnect, match="No Python"):
        marker(installed(tmp_path), str(old))


def test_paths_may_hold_anything(tmp_path: Path) -> None:
    path = installed(tmp_path / 'it\'s $(here) "and" `there`')
    assert marker(path, sys.executable).status == "none"


def test_the_environment_beside_the_client_comes_before_those_on_path(tmp_path: Path) -> None:
    text = "import sys\nprint('HPC-BRIDGE 1 {\"status\": \"' + sys.argv[1] + '\"}')\n"
    path = installed(tmp_path, text)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    wrapper = tmp_path / "venv" / "bin" / "python"
    wrapper.write_text(f'#!/bin/sh\ntouch {tmp_path}/used\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    assert marker(path).status == "dial"
    assert (tmp_path / "used").exists()
