from __future__ import annotations

import resource
import threading
import time

import pytest

from cluster_client import commands, environment, errors
from cluster_client.environment import Account, Login

from .conftest import wait_until


@pytest.fixture
def home(tmp_path):
    return tmp_path


@pytest.fixture
def read(home, monkeypatch):
    monkeypatch.setenv("LEAKED", "from the daemon")

    def read(profile="", setup="", shell="/bin/bash", limit_s=20.0):
        (home / ".profile").write_text(profile)
        return environment.fresh_login(setup, limit_s, Account("me", str(home), shell)).environment

    return read


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/sh"])
def test_it_is_what_the_login_shell_and_the_set_up_commands_make(read, home, shell):
    made = read("export A='two\nlines'; module() { export B=$1; }", "module slurm", shell)
    assert (made["A"], made["B"], made["HOME"], made["USER"]) == (
        "two\nlines", "slurm", str(home), "me",
    )  # fmt: skip
    assert "/usr/bin" in made["PATH"]


def test_nothing_of_the_daemons_own_environment_is_in_it(read):
    assert "LEAKED" not in read()


def test_what_would_act_on_scheduler_commands_is_removed(read):
    names = [
        "SBATCH_PARTITION",
        "SQUEUE_PARTITION",
        "SACCT_FORMAT",
        "SCANCEL_USER",
        "SRUN_X",
        "SALLOC_X",
        "HPC_SECRET",
        "PYTHONPATH",
        "PYTHONHOME",
        "SLURM_ARRAY_JOB_ID",
        "SLURM_CONF",
        "SLURM_CONFIG",
        "MY_SLURM",
    ]
    made = read("".join(f"export {name}=x\n" for name in names))
    assert sorted(set(names) & set(made)) == ["MY_SLURM", "SLURM_CONF"]
    assert not {"PWD", "SHLVL", "_"} & set(made)


def test_start_up_files_that_print_or_read_do_no_harm(read):
    made = read("echo Welcome; echo 'PATH=/evil'; read -r line; cat; export A=1")
    assert made["A"] == "1"
    assert made["PATH"] != "/evil"


@pytest.mark.parametrize(
    ("profile", "setup", "words"),
    [
        ("sleep 300", "", "did not end within 1 s"),
        ("exec true", "", "ended before the environment"),
        ("", "echo no such module >&2; exit 3", "exit status 3). The shell said: no such module"),
        ("", "export A=1; if", "yntax error"),
        ("", "sleep 300", "did not end within 1 s"),
        ("unset PATH", "", "no PATH"),
        ("", "yes 0123456789 | head -100000 >&2; exit 1", "The shell said: "),
    ],
)
def test_what_fails_or_hangs_is_told_in_the_shells_words(read, profile, setup, words):
    started = time.monotonic()
    with pytest.raises(errors.EnvironmentUnread) as caught:
        read(profile, setup, limit_s=1.0)
    assert time.monotonic() - started < 10
    assert words in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_shell_that_does_not_exist_is_told(read):
    with pytest.raises(errors.EnvironmentUnread, match="/no/such/shell"):
        read(shell="/no/such/shell")


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/tcsh"])
def test_its_limits_are_those_that_the_start_up_files_set(home, shell):
    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    (home / ".profile").write_text("ulimit -S -c 1\nulimit -S -t 4000\n")
    (home / ".tcshrc").write_text("limit coredumpsize 1 kbytes\nlimit cputime 4000\n")
    made = environment.fresh_login("", 20.0, Account("me", str(home), shell)).soft_limits
    assert made[resource.RLIMIT_CORE] == 1024
    assert made[resource.RLIMIT_CPU] == 4000
    assert made[resource.RLIMIT_STACK] == stack
    argv = ["bash", "-c", "ulimit -S -c; ulimit -S -t; ulimit -H -t"]
    done = commands.run(argv, environment={"PATH": "/usr/bin:/bin"}, limit_s=20.0, soft_limits=made)
    assert done.stdout.split() == ["1", "4000", "unlimited"]


def answers(*given):
    """A reading that gives, one after the other, what is given; an error is raised."""
    left = iter(given)

    def read():
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return Login(answer)

    return read


BROKEN = errors.EnvironmentUnread("The module is missing.")


def test_without_a_fallback_the_failure_is_told_until_a_later_reading_succeeds(caplog):
    read = answers(BROKEN, BROKEN, {"A": "1"})
    it = environment.LoginEnvironment(read, retry_s=0.1)
    it.start()
    with pytest.raises(errors.EnvironmentUnread, match="The module is missing"):
        it.for_jobs({})
    with pytest.raises(errors.CommandFailed):
        it.for_commands()
    assert it.state == "none is used: The module is missing."
    wait_until(lambda: it.state == "read")
    assert it.for_jobs({}) == {"A": "1"}
    it.stop()
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.cause for record in warnings] == ["The module is missing."]


def test_with_a_fallback_it_is_used_until_a_later_reading_succeeds():
    it = environment.LoginEnvironment(
        answers(BROKEN, {"A": "1"}), lambda: Login({"B": "2"}), retry_s=0.1
    )
    it.start()
    assert it.for_jobs({}) == {"B": "2"}
    assert it.state == "a minimal one is used: The module is missing."
    wait_until(lambda: it.for_jobs({}) == {"A": "1"})
    it.stop()


def test_one_that_was_read_stays_good_when_a_later_reading_fails(monkeypatch):
    monkeypatch.setattr(environment, "_REFRESH_S", 0.05)
    it = environment.LoginEnvironment(answers({"A": "1"}, BROKEN))
    it.start()
    wait_until(lambda: it.state == "an older one is used: The module is missing.")
    assert it.for_jobs({}) == {"A": "1"}
    it.stop()


def test_a_reading_that_breaks_leaves_nobody_waiting():
    it = environment.LoginEnvironment(answers(RuntimeError("a defect")))
    it.start()
    with pytest.raises(errors.EnvironmentUnread, match="log"):
        it.for_jobs({})
    it.stop()


def test_nobody_waits_longer_than_the_limit_for_the_first_reading():
    gate = threading.Event()
    it = environment.LoginEnvironment(lambda: gate.wait(20) and Login({"A": "1"}), wait_s=0.2)
    it.start()
    with pytest.raises(errors.EnvironmentUnread, match="still being read"):
        it.for_jobs({})
    gate.set()
    wait_until(lambda: it.is_tried)
    assert it.for_jobs({}) == {"A": "1"}
    it.stop()


def test_who_needs_it_early_waits_and_commands_speak_english():
    it = environment.LoginEnvironment(
        lambda: time.sleep(0.2) or Login({"PATH": "/bin", "LC_ALL": "de_DE"})
    )
    it.start()
    assert it.for_jobs({"A": "1"}) == {"PATH": "/bin", "LC_ALL": "de_DE", "A": "1"}
    assert it.for_commands() == {"PATH": "/bin", "LC_ALL": "C", "TZ": "UTC"}
