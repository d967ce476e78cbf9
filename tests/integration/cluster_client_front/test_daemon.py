"""The daemon's life, from the command line: one at a time, found again, ended with a reason."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from cluster_client import socket_directory
from cluster_client.protocol import messages
from ops import zipapp
from tests import pythons
from tests.integration.cluster_client_front.harness import (
    SOURCE,
    Installation,
    new_tag,
    wait_until,
)


def test_start_makes_one_daemon_and_a_second_start_finds_it(installation: Installation) -> None:
    first, second = installation.start(), installation.start()
    assert (first["status"], second["status"]) == ("started", "already")
    assert first["pid"] == second["pid"]
    assert second["generation"] == 1
    assert installation.dial()["status"] == "connected"


def test_two_starts_at_once_make_one_daemon(installation: Installation) -> None:
    text = json.dumps(installation.document()) + "\n"
    started = [
        subprocess.Popen(
            installation.command("start", installation.key),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=installation.environment,
        )
        for _ in range(4)
    ]
    answers = []
    for process in started:
        output, _ = process.communicate(text, timeout=60)
        answers.append(json.loads(output.splitlines()[-1]))
    installation.entry()
    assert sorted(answer["status"] for answer in answers) == ["already"] * 3 + ["started"]
    assert len({answer["pid"] for answer in answers}) == 1


def test_a_newer_generation_retires_the_older_daemon(installation: Installation) -> None:
    first = installation.start(1)
    older = installation.entry()
    second = installation.start(2)
    assert second["status"] == "started"
    assert older is not None
    assert not older.is_alive()
    assert second["pid"] != first["pid"]
    welcome = installation.link().greet(generation=2)
    assert "retired: generation 2 took over" in welcome.last_death


def test_an_older_generation_is_refused_with_the_newest(installation: Installation) -> None:
    running = installation.start(3)
    refused = installation.start(2)
    assert (refused["status"], refused["code"], refused["generation"]) == ("failed", "retired", 3)
    installation.stop()
    refused = installation.start(2)
    assert (refused["status"], refused["code"], refused["generation"]) == ("failed", "retired", 3)
    assert running["status"] == "started"


def test_a_frozen_older_daemon_does_not_hold_up_a_newer_one(installation: Installation) -> None:
    installation.start(1)
    frozen = installation.entry()
    assert frozen is not None
    os.kill(frozen.pid, signal.SIGSTOP)
    try:
        assert installation.start(2)["status"] == "started"
        newer = installation.entry()
        assert newer is not None
        assert newer.generation == 2
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    wait_until(lambda: not frozen.is_alive())
    assert installation.entry() == newer
    assert installation.dial()["status"] == "connected"


def test_a_killed_daemon_is_stale_and_its_death_is_told(installation: Installation) -> None:
    installation.start()
    killed = installation.kill()
    found = installation.dial()
    assert found["status"] == "stale"
    assert "killed, or the node rebooted" in found["last_death"]
    assert installation.start(2)["status"] == "started"
    welcome = installation.link().greet(generation=2)
    assert f"pid {killed.pid}" in welcome.last_death


def test_a_stopped_daemon_is_none_and_says_why(installation: Installation) -> None:
    installation.start()
    entry = installation.entry()
    assert entry is not None
    installation.stop()
    found = installation.dial()
    assert found["status"] == "none"
    assert "stopped by SIGTERM" in found["last_death"]
    assert not Path(entry.socket).parent.exists()
    assert not (installation.path / "daemon.pid").exists()
    installation.stop()


def test_a_daemon_elsewhere_is_told(installation: Installation) -> None:
    installation.start()
    installation.stop()
    (installation.state_directory / "registry").write_text(
        json.dumps(
            {
                "generation": 1,
                "host": "login2",
                "pid": 1,
                "starttime": 1,
                "boot_id": "x",
                "socket": "/tmp/none",
                "started_at": 1,
                "build_hash": "x",
                "versions": [1],
            }
        )
    )
    found = installation.dial()
    assert (found["status"], found["host"]) == ("elsewhere", "login2")
    refused = installation.start(1)
    assert (refused["status"], refused["code"]) == ("failed", "elsewhere")
    done = installation.run("stop", installation.key)
    assert done.returncode == 1
    assert "login2" in done.stderr
    assert installation.start(2)["status"] == "started"


def test_status_tells_people_and_programs(installation: Installation) -> None:
    done = installation.run("status", installation.key, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["status"] == "none"
    started = installation.start()
    link = installation.connect(epoch=7)
    done = installation.run("status", installation.key, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert found["status"] == "connected"
    assert found["daemon"]["pid"] == started["pid"]
    assert found["daemon"]["link"] == {"connected": True, "epoch": 7}
    assert found["daemon"]["mode"] == "detached"
    assert "epoch 7" in installation.run("status", installation.key).stdout
    link.close()


# What a daemon is made of ------------------------------------------------------------------------


def test_the_daemon_is_detached_and_carries_no_foreign_variables(
    installation: Installation, tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')\n")
    installation.environment |= {"PYTHONPATH": str(tmp_path), "HPC_SECRET_KEYS": "hush", "X": "y"}
    installation.environment["LD_LIBRARY_PATH"] = "/nowhere"
    assert installation.start()["status"] == "started"
    entry = installation.entry()
    assert entry is not None
    process = Path(f"/proc/{entry.pid}")
    assert os.getsid(entry.pid) == entry.pid
    assert (process / "cwd").readlink() == Path("/")
    assert {(process / "fd" / number).readlink() for number in "01"} == {Path("/dev/null")}
    variables = {
        item.partition(b"=")[0] for item in (process / "environ").read_bytes().split(b"\0")
    }
    assert not variables & {b"PYTHONPATH", b"HPC_SECRET_KEYS", b"X"}
    assert {b"PATH", b"LD_LIBRARY_PATH"} <= variables
    link, tag = installation.connect(), new_tag()
    script = "#!/bin/sh\nenv\n"
    digest = hashlib.sha256(script.encode()).hexdigest()
    assert isinstance(link.request(messages.Submit(tag, 1, script, digest)), messages.Submitted)
    output = installation.jobs / tag / "stdout.log"
    wait_until(lambda: "PATH=" in output.read_text())
    assert "LD_LIBRARY_PATH" not in output.read_text()
    link.close()


def test_the_socket_is_private(installation: Installation) -> None:
    installation.start()
    entry = installation.entry()
    assert entry is not None
    path = Path(entry.socket)
    assert str(path.parent) == socket_directory.usual_path(str(installation.state_directory))
    assert path.parent.stat().st_mode & 0o7777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(str(path)) <= 100


def test_a_trap_in_place_of_the_socket_directory_is_stepped_around(
    installation: Installation, tmp_path: Path
) -> None:
    usual = Path(socket_directory.usual_path(str(installation.state_directory)))
    usual.symlink_to(tmp_path)
    try:
        assert installation.start()["status"] == "started"
        entry = installation.entry()
        assert entry is not None
        assert Path(entry.socket).parent not in (usual, tmp_path)
        assert installation.dial()["status"] == "connected"
        assert installation.start()["status"] == "already"
        assert not list(tmp_path.iterdir())
    finally:
        usual.unlink()


def test_a_lost_socket_and_a_lost_registry_are_restored(installation: Installation) -> None:
    installation.settings["HPC_SOCKET_CHECK_S"] = "0.2"
    installation.start()
    entry = installation.entry()
    assert entry is not None
    Path(entry.socket).unlink()
    wait_until(lambda: (found := installation.entry()) and found.socket != entry.socket)
    assert installation.dial()["status"] == "connected"
    (installation.state_directory / "registry").unlink()
    newer = wait_until(installation.entry)
    assert installation.dial()["status"] == "connected"
    installation.stop()
    for left in (entry, newer):
        assert not Path(left.socket).parent.exists()


def test_the_pid_file_informs(installation: Installation) -> None:
    started = installation.start()
    assert (installation.path / "daemon.pid").read_text() == f"{started['pid']}\n"


def test_a_pid_file_that_can_not_be_ours_is_no_error(
    installation: Installation, tmp_path: Path
) -> None:
    target = tmp_path / "precious"
    target.write_text("keep me")
    (tmp_path / "link.pid").symlink_to(target)
    installation.environment["HPC_DAEMON_PID_FILE"] = str(tmp_path / "link.pid")
    started = installation.start()
    assert started["status"] == "started"
    assert target.read_text() == "keep me"
    assert (installation.state_directory / "pid").read_text() == f"{started['pid']}\n"
    assert "pid_file_elsewhere" in installation.log


def test_another_users_pid_file_is_left_alone(installation: Installation, tmp_path: Path) -> None:
    other = Path("/etc/passwd")  # the superuser's, and so another user's for all the others
    if os.geteuid() == 0:
        other = tmp_path / "other.pid"
        other.write_text("1\n")
        os.chown(other, 12345, 12345)
    before = other.read_bytes()
    installation.environment["HPC_DAEMON_PID_FILE"] = str(other)
    started = installation.start()
    assert started["status"] == "started"
    assert other.read_bytes() == before
    assert (installation.state_directory / "pid").read_text() == f"{started['pid']}\n"


# Refusals ----------------------------------------------------------------------------------------


def failed(installation: Installation, code: str, *words: str, **document: Any) -> None:
    answer = installation.start(**document)
    assert (answer["status"], answer["code"]) == ("failed", code), answer
    for word in words:
        assert word in answer["detail"]
    assert "Traceback" not in answer["detail"]
    assert installation.dial()["status"] == "none"


def test_the_superuser_is_refused_unless_allowed(installation: Installation) -> None:
    del installation.environment["HPC_ALLOW_ROOT"]
    if os.geteuid() == 0:
        failed(installation, "settings", "root", "HPC_ALLOW_ROOT=1")
    else:
        assert installation.start()["status"] == "started"


def test_bad_settings_stop_the_start(installation: Installation) -> None:
    installation.environment["HPC_POLL_INTERVAL_S"] = "often"
    failed(installation, "settings", "HPC_POLL_INTERVAL_S", "the environment")
    installation.environment["HPC_POLL_INTERVAL_S"] = "1"
    failed(
        installation,
        "settings",
        "HPC_LOG_DIRECTORY",
        "the server",
        settings={"HPC_LOG_DIRECTORY": "relative"},
    )
    failed(installation, "settings", "HPC_SCHEDULER_CLASS", settings={"HPC_SCHEDULER_CLASS": "abc"})
    failed(installation, "settings", "umask", umask="0000")
    failed(installation, "settings", "generation", generation=0)
    (installation.path / "settings" / "settings.py").chmod(0o666)
    failed_to_trust = installation.start()
    assert failed_to_trust["code"] == "settings"
    assert "chmod go-w" in failed_to_trust["detail"]


def test_a_directory_that_can_not_be_made_stops_the_start(installation: Installation) -> None:
    (installation.path / "jobs").write_text("in the way")
    failed(installation, "settings", "jobs", "can't be made")


def test_a_document_that_is_none_is_told(installation: Installation) -> None:
    for text in ("", "\n", "no json\n", "[]\n", "{}\n", '{"generation": 1e999}\n'):
        done = installation.run("start", installation.key, text=text)
        assert done.returncode == 1
        assert json.loads(done.stdout.splitlines()[-1])["status"] == "failed"
        assert "Traceback" not in done.stderr


def test_a_key_that_is_none_is_told(installation: Installation) -> None:
    for command in ("start", "serve", "dial", "files", "status", "stop"):
        done = installation.run(command, "../../etc.1")
        assert done.returncode == 1
        assert "is no key" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_missing_websockets_is_told(short_directory: Path) -> None:
    bare = pythons.interpreters()[0].path
    with Installation.copy(bare, short_directory / "client") as installation:
        failed(installation, "died", "pip install -r requirements.txt")
        done = installation.run("selftest")
        assert done.returncode == 1
        assert "FAILED websockets" in done.stdout


def test_an_old_python_is_told() -> None:
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for old in root.glob("versions/3.[678].*/bin/python3"):
        done = subprocess.run(
            [old, SOURCE / "client.py", "dial", "portal.1"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1
        assert "Python 3.9 or newer is needed" in done.stderr


# The log -----------------------------------------------------------------------------------------


def test_the_log_is_bounded(installation: Installation) -> None:
    installation.settings |= {"HPC_LOG_SIZE_BYTES": "2048", "HPC_LOG_FILES": "3"}
    installation.start()
    for epoch in range(1, 30):
        installation.connect(epoch).close()
    files = sorted((installation.path / "log").iterdir())
    assert len(files) == 3
    assert all(path.stat().st_size <= 2048 for path in files)
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)


def test_a_full_disk_under_the_log_does_not_kill_the_daemon(installation: Installation) -> None:
    (installation.path / "log").mkdir()
    (installation.path / "log" / "portal.1.log").symlink_to("/dev/full")
    assert installation.start()["status"] == "started"
    link = installation.connect()
    assert isinstance(link.request(messages.Compare(())), messages.Compared)
    link.close()


# Forms of the program ----------------------------------------------------------------------------


def test_the_client_runs_from_the_files_of_ops_zipapp(
    client_python: Path, short_directory: Path
) -> None:
    directory = short_directory / "client"
    assert zipapp.main(directory) == 0
    (packed,) = directory.glob("client-*.pyz")
    environment = {"HPC_ALLOW_ROOT": "1", "PATH": "/usr/bin:/bin"}
    for program in (directory / "client.py", packed):
        done = subprocess.run(
            [client_python, program, "status", "portal.1", "--json"],
            capture_output=True,
            env=environment,
        )
        found = json.loads(done.stdout)
        assert found["status"] == "none", done.stderr
        assert packed.name == f"client-{found['installed']['build_hash']}.pyz"
    done = subprocess.run(
        [client_python, directory / "client.py", "selftest"], capture_output=True, env=environment
    )
    assert done.returncode == 0, done
    assert f"state directory: {directory}/state".encode() in done.stdout


def test_dial_starts_fast_and_needs_no_package(installation: Installation) -> None:
    done = subprocess.run(
        [
            *(str(installation.python), "-X", "importtime", str(installation.path / "client.py")),
            *("dial", installation.key),
        ],
        capture_output=True,
        text=True,
        env=installation.environment,
        timeout=60,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "cluster_client.dial" in imported
    assert not imported & {"websockets", "argparse", "dataclasses", "subprocess", "logging"}


def test_a_site_file_that_is_not_trusted_is_told_by_dial_too(installation: Installation) -> None:
    (installation.path / "settings" / "settings.py").chmod(0o666)
    found = installation.dial()
    assert found["status"] == "none"
    assert "chmod go-w" in found["detail"]
