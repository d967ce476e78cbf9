from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster_client import commands, errors

from .conftest import ROOT, wait_until

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "MARK": "seen"}


def run(*argv, limit_s=20.0, **options):
    return commands.run(argv, environment=ENVIRONMENT, limit_s=limit_s, **options)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_command_gives_its_outputs_and_its_status():
    finished = run("sh", "-c", "cat; echo $MARK >&2; exit 4", stdin="größer")
    assert (finished.returncode, finished.stdout, finished.stderr) == (4, "größer", "seen\n")
    assert finished.took_s < 10


def test_it_sees_the_given_environment_alone():
    assert set(run("env").stdout.split()) == {"PATH=/usr/bin:/bin", "MARK=seen"}


def test_bytes_that_are_no_text_are_kept():
    finished = run("printf", r"a\377b")
    assert finished.stdout.encode("utf-8", "surrogateescape") == b"a\xffb"


def test_a_large_output_and_a_large_input_block_nothing():
    text = "x" * 5_000_000
    assert run("cat", stdin=text).stdout == text


def test_after_its_limit_it_is_killed_with_all_of_its_group(tmp_path):
    started = time.monotonic()
    body = f"sleep 300 & echo $! >{tmp_path}/pid; sleep 300"
    with pytest.raises(errors.CommandTimedOut, match="1 s"):
        run("sh", "-c", body, limit_s=1.0)
    assert time.monotonic() - started < 5
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not alive(pid))


def test_a_grandchild_that_keeps_the_outputs_open_holds_nobody_up(tmp_path):
    started = time.monotonic()
    body = f"setsid sleep 300 & echo $! >{tmp_path}/pid; echo done"
    finished = run("sh", "-c", body)
    assert (finished.stdout, time.monotonic() - started < 5) == ("done\n", True)
    os.kill(int((tmp_path / "pid").read_text()), 9)


def test_a_missing_command_is_told_with_the_path_that_was_searched():
    with pytest.raises(errors.CommandFailed, match=r"sbatch-of-nowhere.*/usr/bin:/bin"):
        run("sbatch-of-nowhere")


def test_a_file_that_is_no_program_is_told():
    with pytest.raises(errors.CommandFailed, match="could not be started"):
        run(str(Path(__file__)))


def test_it_dies_with_the_daemon(tmp_path):
    program = (
        "from cluster_client import commands\n"
        f"commands.run(['sh', '-c', 'echo $$ >{tmp_path}/pid; exec sleep 300'],"
        " environment={'PATH': '/usr/bin:/bin'}, limit_s=300)\n"
    )
    daemon = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    path = tmp_path / "pid"
    wait_until(lambda: path.exists() and path.read_text().strip())
    pid = int(path.read_text())
    assert alive(pid)
    daemon.kill()
    daemon.wait()
    wait_until(lambda: not alive(pid), what="the command's death")
