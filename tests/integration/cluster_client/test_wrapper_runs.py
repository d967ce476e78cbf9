"""The wrapper as a process: claim, signals, records."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster_client import wrapper
from cluster_client.schedulers.local import Local

from .conftest import tag_of, wait_until

LISTENER = """\
#!/usr/bin/env python3
import signal, sys, time
heard = []
for number in (1, 2, 3, 10, 12, 15, 24):
    signal.signal(number, lambda number, frame: heard.append(number))
open("ready", "w").close()
deadline = time.monotonic() + 30
while not heard and time.monotonic() < deadline:
    time.sleep(0.005)
time.sleep(0.4)
print(heard)
sys.exit(7)
"""


DEFAULT_SIGNALS = ("/usr/bin/env", "--default-signal=HUP,INT,QUIT")
"""As a scheduler starts jobs; tests that run in the background ignore these."""


class Job:
    """A job's directory with its wrapper."""

    def __init__(self, directory, tag, script):
        self.directory = directory / "job s'$x" / tag
        self.hints = directory / "hints"
        self.tag = tag
        self.control = self.directory / ".hpc"
        self.control.mkdir(parents=True)
        self.hints.mkdir(exist_ok=True)
        (self.control / "script").write_bytes(script)
        (self.control / "script").chmod(0o400)
        text = wrapper.render(
            tag=tag,
            directory=str(self.directory),
            hints_directory=str(self.hints),
            script_sha256=hashlib.sha256(script).hexdigest(),
            identity=Local.wrapper_identity,
        )
        (self.control / "wrapper").write_bytes(text)

    def start(self, argv=("/bin/bash", "-p"), **options):
        options = {"env": {"PATH": os.environ["PATH"]}, **options}
        with (self.directory / "out").open("ab") as out, (self.directory / "err").open("ab") as err:
            return subprocess.Popen(
                [*DEFAULT_SIGNALS, *argv, self.control / "wrapper"],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                **options,
            )

    def run(self, **options):
        return self.start(**options).wait(30)

    def read(self, name):
        return (self.directory / name).read_text()

    def record(self):
        return json.loads(self.read(".hpc/exit.-.0"))

    def has_hint(self, kind):
        return any(self.hints.glob(f"{self.tag}.{kind}.*"))


@pytest.fixture
def make_job(tmp_path):
    numbers = iter(range(1000))

    def make(body):
        script = body if body.startswith("#!") else f"#!/bin/bash\n{body}\n"
        return Job(tmp_path, tag_of(next(numbers)), script.encode())

    return make


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 143", 143),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("kill -INT $$", 130),
        ("kill -HUP $$", 129),
        ("kill -SEGV $$", 139),
        ("kill -USR1 $$", 138),
        ("kill -34 $$", 162),
    ],
)
def test_it_ends_and_records_as_the_script_did(make_job, body, status):
    job = make_job(body)
    assert job.run() == status
    record = job.record()
    assert (record["exit"], record["tag"], record["run"]) == (status, job.tag, "0")
    assert record["start"] <= record["end"]
    assert job.has_hint("start")
    assert job.has_hint("exit")
    assert job.read("err") == ""


@pytest.mark.parametrize("repetition", range(50))
def test_a_signal_to_all_that_ends_the_script_is_recorded_as_such(make_job, repetition):
    job = make_job("sleep 30 & wait; sleep 30")
    process = job.start()
    wait_until(lambda: job.has_hint("start"))
    # From right at the start to well after it.
    if repetition % 2:
        signal.sigtimedwait([], repetition / 1000)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(30) == 143
    assert job.record()["exit"] == 143


@pytest.mark.parametrize("number", [1, 2, 3, 10, 12, 15, 24])
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["alone", "all"])
def test_each_signal_arrives_exactly_once(make_job, send, number):
    job = make_job(LISTENER)
    process = job.start()
    wait_until((job.directory / "ready").exists)
    send(process.pid, number)
    assert process.wait(30) == 7
    assert job.read("out") == f"[{number}]\n"
    assert job.record()["exit"] == 7


def test_many_signals_to_the_wrapper_alone_end_in_the_scripts_own_status(make_job):
    job = make_job("#!/bin/sh\nexec sleep 30\n")
    process = job.start()
    wait_until(lambda: job.has_hint("start"))
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP) * 3:
        os.kill(process.pid, number)
    assert process.wait(30) in (129, 138, 143)
    assert job.record()["exit"] == process.returncode


def test_it_waits_for_a_script_that_takes_its_time_after_the_signal(make_job):
    job = make_job("trap 'sleep 1; echo saved; exit 9' TERM; touch ready; sleep 30 & wait")
    process = job.start()
    wait_until((job.directory / "ready").exists)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(30) == 9
    assert job.read("out") == "saved\n"


def test_a_shot_keeper_takes_the_script_along(make_job):
    job = make_job("echo $PPID >keeper; echo $$ >self; touch ready; sleep 30")
    process = job.start()
    wait_until((job.directory / "ready").exists)
    os.kill(int(job.read("keeper")), signal.SIGKILL)
    assert process.wait(30) == 137
    assert job.record()["exit"] == 137
    script = Path("/proc") / job.read("self").strip()
    wait_until(lambda: not script.exists())
    with contextlib.suppress(ProcessLookupError):  # the sleep, if it came to that
        os.killpg(process.pid, signal.SIGKILL)


def test_nothing_is_left_when_the_wrapper_is_shot_but_the_script(make_job):
    job = make_job("touch ready; exec sleep 30")
    process = job.start()
    wait_until((job.directory / "ready").exists)
    process.kill()
    process.wait()

    def rest():
        found = subprocess.run(
            ["ps", "-o", "comm=", "--sid", str(process.pid)], capture_output=True, text=True
        )
        return sorted(found.stdout.split())

    wait_until(lambda: rest() == ["bash", "sleep"], what="keeper and script alone")
    os.killpg(process.pid, signal.SIGKILL)


def test_the_second_start_of_a_job_is_a_duplicate_that_touches_nothing(make_job):
    job = make_job("echo ran >>ledger; touch ready; sleep 0.5")
    first = job.start()
    wait_until((job.directory / "ready").exists)
    assert [job.run() for _ in range(3)] == [121, 121, 121]
    assert first.wait(30) == 0
    assert job.run() == 121
    assert job.read("ledger") == "ran\n"
    assert job.read("err") == ""
    assert len(list(job.control.glob("duplicate.*"))) == 4


def test_of_eight_at_once_one_runs(make_job):
    job = make_job("echo ran >>ledger; sleep 0.2")
    processes = [job.start() for _ in range(8)]
    assert sorted(process.wait(30) for process in processes) == [0] + [121] * 7
    assert job.read("ledger") == "ran\n"


def test_a_script_that_was_changed_is_not_started(make_job):
    job = make_job("echo ran >ledger")
    (job.control / "script").chmod(0o600)
    (job.control / "script").write_text("#!/bin/sh\necho other >ledger\n")
    assert job.run() == 122
    assert not (job.directory / "ledger").exists()
    assert "not the one that was submitted" in job.read("err")
    (record,) = job.control.glob("refused.*")
    assert json.loads(record.read_text())["exit"] == 122


def test_a_directory_that_is_gone_or_holds_no_claim_runs_nothing(make_job, tmp_path):
    job = make_job("echo ran >ledger")
    text = (job.control / "wrapper").read_bytes()
    (tmp_path / "wrapper").write_bytes(text)
    shutil.rmtree(job.directory)
    ended = subprocess.run(["/bin/bash", "-p", tmp_path / "wrapper"], capture_output=True)
    assert ended.returncode == 122
    assert b"did not start" in ended.stderr


@pytest.mark.parametrize(
    "first_line",
    ["#!/bin/bash", "#!  /bin/sh  ", "#!/usr/bin/env -S bash -e -u", "#!/bin/bash -e"],
)
def test_the_interpreter_is_read_as_the_kernel_does(make_job, first_line):
    job = make_job(f"{first_line}\necho $0\nexit 5")
    assert job.run() == 5
    assert job.read("out") == f"{job.control}/script\n"


def test_a_wrapper_cut_anywhere_is_never_a_success(make_job):
    job = make_job("echo ran >>ledger")
    text = (job.control / "wrapper").read_bytes()
    start = text.index(b"\n{\n") + 3
    # Everywhere in the part with most conditionals, after which bash 5.2 ends with 0.
    dense = text.index(b"_w_pass_on()")
    for cut in (*range(start, dense, 97), *range(dense, dense + 400)):
        (job.control / "wrapper").write_bytes(text[:cut])
        assert job.run() != 0, cut
    assert not (job.directory / "ledger").exists()


def test_what_the_user_exports_acts_in_the_script_alone(make_job, tmp_path):
    job = make_job("echo $BASH_ENV; type printf | head -1; echo $_w_tag $IFS")
    trap = tmp_path / "bash_env"
    trap.write_text("touch sourced\n")
    environment = {
        "PATH": os.environ["PATH"],
        "BASH_ENV": str(trap),
        "BASH_FUNC_printf%%": "() { touch stolen; }",
        "SHELLOPTS": "errexit:nounset:xtrace",
        "IFS": ":",
        "_w_tag": "mine",
        "EPOCHREALTIME": "never",
    }
    assert job.run(argv=("/bin/bash",), env=environment) == 0
    assert job.read("out").splitlines()[0] == str(trap)
    assert job.record()["tag"] == job.tag
    assert (job.directory / "stolen").exists() is False


@pytest.mark.parametrize("argv", [("/bin/bash", "-p"), ("/bin/bash",)])
def test_what_acts_on_bash_itself_acts_in_the_script_alone(make_job, argv):
    job = make_job("#!/bin/sh\nexec /usr/bin/env\n")
    theirs = {
        "FUNCNEST": "1",
        "TMOUT": "0.000001",
        "BASH_COMPAT": "3.1",
        "POSIXLY_CORRECT": "yes",
        "LC_ALL": "tr_TR.UTF-8",
    }
    assert job.run(argv=argv, env={"PATH": os.environ["PATH"], **theirs}) == 0
    assert job.record()["exit"] == 0
    lines = job.read("out").splitlines()
    assert {f"{name}={value}" for name, value in theirs.items()} <= set(lines)


def test_a_limit_of_read_that_the_user_exports_loses_no_end(make_job):
    job = make_job("sleep 0.3; exit 5")
    assert job.run(env={"PATH": os.environ["PATH"], "TMOUT": "0.000001"}) == 5
    assert job.record()["exit"] == 5


def stop_and_continue(process, seed):
    """Stop the job's whole group for a moment, again and again, until it has ended."""
    chance = random.Random(seed)
    deadline = time.monotonic() + 30
    while process.poll() is None:
        assert time.monotonic() < deadline
        with contextlib.suppress(ProcessLookupError):
            time.sleep(chance.uniform(0, 0.01))
            os.killpg(process.pid, signal.SIGSTOP)
            time.sleep(chance.choice([0.012, 0.2]))
            os.killpg(process.pid, signal.SIGCONT)


def test_jobs_that_are_suspended_at_random_end_as_their_scripts_did(make_job):
    jobs = [make_job("echo ran >>ledger; exit 0") for _ in range(100)]

    def run(number):
        process = jobs[number].start()
        stop_and_continue(process, number)
        return process.wait(30), jobs[number].record()["exit"], jobs[number].read("ledger")

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(run, range(len(jobs)))) == {(0, 0, "ran\n")}


def test_a_signal_that_comes_while_the_script_starts_is_not_lost(make_job):
    def run(job):
        process = job.start()
        wait_until(lambda: job.has_hint("start"))
        os.killpg(process.pid, signal.SIGTERM)
        return process.wait(30), job.record()["exit"]

    jobs = [make_job("#!/bin/sh\nexec sleep 60\n") for _ in range(200)]
    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(run, jobs)) == {(143, 143)}
