"""The shell scripts that make a machine ready."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ops import installation

LIMIT_S = 60
NOBODY = 65534


@pytest.fixture
def programs(short_directory, checkout):
    """A PATH of our own, and the scripts where everybody can read them."""
    short_directory.chmod(0o755)
    shutil.copytree(checkout / "ops", short_directory / "ops")
    (short_directory / "bin").mkdir()
    for name in ("sh", "tr", "dirname", "id", "grep", "make", "git", "postgres", "redis-server"):
        provide(short_directory, name)
    for name in (
        "sshd",
        "ssh-keygen",
        "tcsh",
        "sbatch",
        "slurmctld",
        "slurmd",
        "slurmdbd",
        "munged",
        "mariadbd",
        "chromium",
    ):
        provide(short_directory, name)
    provide(short_directory, "mariadb-install-db")
    provide(short_directory, "python3", everybodys_python(checkout))
    return short_directory


def everybodys_python(checkout):
    """The system's Python, since ours may lie where only its owner gets; else ours."""
    command, path = [checkout / "ops" / "find-python"], "/usr/local/bin:/usr/bin:/bin"
    found = subprocess.run(command, env={"PATH": path}, capture_output=True, text=True)
    return shutil.which(found.stdout.strip(), path=path) or os.path.realpath(sys.executable)


def provide(place, name, target=None):
    """Put a program of the system on our PATH; those that nobody starts may be any."""
    (place / "bin" / name).symlink_to(target or shutil.which(name) or "/bin/true")


def run(place, script, *arguments, **environment):
    """Run a script as a user who may install nothing."""
    return subprocess.run(
        [place / "ops" / script, *arguments],
        cwd=place,
        env={"PATH": str(place / "bin"), **environment},
        user=NOBODY if os.geteuid() == 0 else None,
        extra_groups=[] if os.geteuid() == 0 else None,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def test_a_complete_system_needs_no_installation_and_no_word(programs):
    finished = run(programs, "install-test-packages")
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")


def test_without_root_the_missing_packages_are_named_in_one_sentence(programs):
    (programs / "bin" / "redis-server").unlink()
    (programs / "bin" / "git").unlink()
    provide(programs, "apt-get", "/bin/false")
    finished = run(programs, "install-test-packages")
    assert finished.returncode == 1
    assert finished.stdout == ""
    assert len(finished.stderr.splitlines()) == 1
    assert "installing them needs root: git redis-server." in finished.stderr


def test_where_there_is_no_apt_the_missing_packages_are_named_too(programs):
    (programs / "bin" / "redis-server").unlink()
    finished = run(programs, "install-test-packages")
    assert finished.returncode == 1
    assert finished.stderr.endswith("(names as on Debian): redis-server. Install it first.\n")


def test_a_python_that_is_too_old_or_absent_is_passed_over(programs):
    provide(programs, "python3.13", "/bin/false")
    finished = run(programs, "find-python", PYTHON="python3.13 python3.99 python3")
    assert finished.stdout.split() == ["python3"]


def test_without_a_python_new_enough_one_sentence_says_how_to_name_one(programs):
    (programs / "bin" / "python3").unlink()
    finished = run(programs, "make-venv", "venv/for-run", "lock")
    assert finished.returncode == 1
    assert "Python 3.11 or newer is needed" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_an_installation_is_done_again_when_the_lock_changes_and_then_no_more(tmp_path, capsys):
    lock, stamp = tmp_path / "lock.txt", tmp_path / "venv" / "for-run"
    lock.write_text("# nothing is needed\n")
    stamp.parent.mkdir()
    stamp.write_text("the hash of another lock")
    (stamp.parent / "left-over").touch()
    told = [lines_of_installation(stamp, lock, capsys) for _ in range(2)]
    assert [len(lines) for lines in told] == [2, 0]
    assert (stamp.parent / "bin" / "python").exists()
    assert not (stamp.parent / "left-over").exists()


def lines_of_installation(stamp: Path, lock: Path, capsys) -> list[str]:
    """Install in this process, but for its signals; what it says."""
    asked = installation.interruption.Interruption()
    installation.install(stamp, [lock], dict(os.environ), asked)
    return capsys.readouterr().out.splitlines()
