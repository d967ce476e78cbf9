from __future__ import annotations

import logging
import time

import pytest

from cluster_client import environment
from cluster_client.environment import Account


@pytest.fixture
def home(tmp_path):
    return tmp_path


@pytest.fixture
def read(home, monkeypatch):
    monkeypatch.setenv("LEAKED", "from the daemon")

    def read(profile="", setup="", shell="/bin/bash", limit_s=20.0):
        (home / ".profile").write_text(profile)
        return environment.login_environment(setup, limit_s, Account("me", str(home), shell))

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
    ("profile", "setup"),
    [("sleep 300", ""), ("exec true", ""), ("", "exit 3"), ("", "sleep 300"), ("unset PATH", "")],
)
def test_what_fails_or_hangs_leaves_a_minimal_one_with_a_warning(read, caplog, profile, setup):
    started = time.monotonic()
    with caplog.at_level(logging.WARNING):
        made = read(profile, setup, limit_s=1.0)
    assert time.monotonic() - started < 10
    assert set(made) == {"HOME", "USER", "LOGNAME", "SHELL", "PATH"}
    assert caplog.records[0].cause


def test_a_shell_that_does_not_exist_leaves_a_minimal_one(read):
    assert set(read(shell="/no/such/shell")) == {"HOME", "USER", "LOGNAME", "SHELL", "PATH"}


def test_who_needs_it_early_waits_and_commands_speak_english():
    it = environment.LoginEnvironment(
        lambda: time.sleep(0.2) or {"PATH": "/bin", "LC_ALL": "de_DE"}
    )
    it.start()
    assert it.for_jobs({"A": "1"}) == {"PATH": "/bin", "LC_ALL": "de_DE", "A": "1"}
    assert it.for_commands() == {"PATH": "/bin", "LC_ALL": "C", "TZ": "UTC"}
