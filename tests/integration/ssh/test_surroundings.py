"""A bootstrap in hard surroundings: odd accounts, narrow servers, old Pythons, full disks."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from workers.links import bridge, client_archive, errors, upload

from .clusters import Cluster, bring_up, greeted, outcomes, reach
from .site import NARROW

HOME_OF_140_BYTES = "h" * 140
NOISY = {
    "/bin/bash": (
        "bashrc",
        "echo Welcome; echo MOTD >&2; read -r -t 0.3 answer; sleep 0.3\n"
        "[ -z $AGAIN ] && AGAIN=1 exec /bin/tcsh\n",
    ),
    "/bin/tcsh": ("tcshrc", "echo Welcome\nset line = $<\nalias exec echo\nsleep 0.3\n"),
}
OLD_PYTHON = """\
#!/bin/sh
case "$*" in *print*) echo 3.8.18 ;; *) exit 1 ;; esac
"""
MODULES = """\
use() {
    echo "loading $1"
    export PATH=$HOME/$1/bin:$PATH LD_LIBRARY_PATH=$HOME/$1/lib
    read -r line
}
"""
PYTHON_WITH_LIBRARIES = """\
#!/bin/bash
[ "$LD_LIBRARY_PATH" = "$HOME/python/lib" ] || {
    echo "libpython3.13.so.1.0: cannot open shared object file" >&2
    exit 127
}
exec -a "$0" /usr/bin/python3 "$@"
"""
"""As one that was built with a shared library and without a path to it."""


def write(cluster: Cluster, path: str, text: str, mode: int = 0o644) -> Path:
    """A file of the account, below its home."""
    file = cluster.account.home / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    cluster.site.give(cluster.account, cluster.account.home)
    return file


def refusal(cluster: Cluster) -> errors.CannotConnect:
    """How a bootstrap fails."""
    with pytest.raises(errors.CannotConnect) as caught:
        reach(cluster, is_asked=True)
    return caught.value


# What does no harm --------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", list(NOISY))
def test_noisy_start_up_files_do_not_disturb(make: Callable[..., Cluster], shell: str) -> None:
    cluster = make(f"noisy-{Path(shell).name}", shell=shell)
    file, text = NOISY[shell]
    write(cluster, f".{file}", text)
    bring_up(cluster)


def test_a_narrow_server_is_enough(make: Callable[..., Cluster]) -> None:
    bring_up(make("narrow", **NARROW))


def test_a_home_path_of_140_bytes_behind_a_link(make: Callable[..., Cluster]) -> None:
    cluster = make("long", home=HOME_OF_140_BYTES)
    (cluster.account.home / "real").mkdir()
    cluster.path.symlink_to("real")
    cluster.site.give(cluster.account, cluster.account.home)
    assert len(str(cluster.path)) > 140
    bring_up(cluster)
    assert cluster.path.is_symlink()


def test_nothing_needs_to_be_executable(make: Callable[..., Cluster]) -> None:
    cluster = make("noexec")
    disk = cluster.site.accounts.noexec_disk
    cluster.installation = bridge.Installation(str(disk / "client"))
    with cluster.carrier() as carrier:
        copied = carrier.run(["/bin/sh", "-c", 'cp /bin/true "$1" && "$1/true"', "sh", str(disk)])
        assert copied.status == 126
    bring_up(cluster)
    cluster.stop()


def test_set_up_commands_come_before_python_is_looked_for(
    make: Callable[..., Cluster], archive: client_archive.Archive
) -> None:
    cluster = make("set-up")
    programs = cluster.account.home / "python" / "bin"
    programs.mkdir(parents=True)
    python = programs / "python3.13"
    python.write_text(PYTHON_WITH_LIBRARIES)
    python.chmod(0o755)
    cluster.site.give(cluster.account, programs)
    profile = cluster.account.home / ".bash_profile"
    profile.write_text(MODULES)
    cluster.site.give(cluster.account, profile)
    cluster.installation = bridge.Installation(str(cluster.path), "", "use python # it's there\n")
    bring_up(cluster)
    (look,) = [step for step in cluster.steps if step.name == "Look at the client"]
    assert str(python) in look.detail
    # The daemon too, which starts helpers and knows set-up commands from its document.
    daemon = cluster.status()["daemon"]
    assert os.fsencode(python) in Path(f"/proc/{daemon['pid']}/cmdline").read_bytes()


def test_two_bootstraps_at_once_make_one_daemon_each(
    make: Callable[..., Cluster], archive: client_archive.Archive
) -> None:
    cluster = make("at-once")
    pids: list[int] = []

    def bootstrap() -> None:
        # Not greeted: a second greeting of one epoch ends the link of the first.
        with contextlib.closing(reach(cluster, is_asked=True)):
            pids.append(cluster.status()["daemon"]["pid"])

    threads = [threading.Thread(target=bootstrap) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(pids) == 2
    assert len(set(pids)) == 1
    assert [path.name for path in cluster.path.glob("client-*")] == [archive.name]
    assert not list(cluster.path.glob("*.new"))


# What is told -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("python", "old", "words"),
    [
        ("", "", "(python3.13 ... python3.9 or python3 on PATH)"),
        ("", "python3", "on PATH; python3 is 3.8.18)"),
        ("HOME/bin/mine", "mine", "/bin/mine is 3.8.18)"),
        ("/nowhere/python3", "", "(/nowhere/python3)"),
    ],
    ids=["none", "old", "named-old", "named-absent"],
)
def test_no_python_is_told(make: Callable[..., Cluster], python: str, old: str, words: str) -> None:
    cluster = make(f"pythonless-{abs(hash((python, old)))}")
    home = cluster.account.home
    write(cluster, ".bashrc", "PATH=$HOME/bin\n")
    if old:
        write(cluster, f"bin/{old}", OLD_PYTHON, 0o755)
    python = python.replace("HOME", str(home))
    cluster.installation = bridge.Installation(str(cluster.path), python)
    problem = refusal(cluster)
    assert (problem.reason, problem.transient) == ("no_python", False)
    assert words in str(problem)
    assert "failed" in outcomes(cluster).values()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("internal-sftp", "This service allows sftp connections only"),
        ("echo Files only.; exit 1", "Files only."),
    ],
)
def test_a_forced_command_is_told(make: Callable[..., Cluster], command: str, words: str) -> None:
    problem = refusal(make(f"forced-{command[:4]}", ForceCommand=command))
    assert problem.reason == "no_shell"
    assert words in str(problem)
    assert "ForceCommand" in str(problem)


def test_a_refused_directory_is_told(make: Callable[..., Cluster]) -> None:
    cluster = make("refused")
    file = write(cluster, "file", "")
    locked = write(cluster, "locked/file", "").parent
    locked.chmod(0)
    taken = write(cluster, "taken/client.py/file", "").parents[1]
    for path in (
        *("/usr/client", "/proc/client", f"{file}/client", str(taken)),
        *(f"{locked}/client", str(locked)),
    ):
        cluster.installation = bridge.Installation(path)
        problem = refusal(cluster)
        assert (problem.reason, problem.transient) == ("path_refused", False), problem
        assert path in str(problem)
    locked.chmod(0o777)
    assert "chmod o-w" in str(refusal(cluster))


def test_a_full_disk_is_told_and_nothing_half_stays(make: Callable[..., Cluster]) -> None:
    cluster = make("full")
    disk = cluster.site.accounts.small_disk
    cluster.installation = bridge.Installation(str(disk / "client"))
    problem = refusal(cluster)
    assert (problem.reason, problem.transient) == ("disk_full", True)
    assert problem.pause_s > 0
    with cluster.carrier() as carrier:
        left = carrier.run(["find", str(disk), "-type", "f"])
    assert left.stdout == b""


def test_a_disk_that_is_full_at_the_start_is_told(
    make: Callable[..., Cluster], archive: client_archive.Archive
) -> None:
    cluster = make("full-later")
    state = cluster.site.accounts.small_disk / "state"
    write(cluster, "client/settings/settings.py", f"HPC_STATE_DIRECTORY = {str(state)!r}\n")
    with cluster.carrier() as carrier:
        upload.put(carrier, cluster.installation, archive)
        filled = carrier.run(
            ["/bin/sh", "-c", 'mkdir -p "$1"; cat /dev/zero >"$1/zeros"', "sh", str(state)]
        )
        assert filled.status == 1
        problem = refusal(cluster)
        assert (problem.reason, problem.transient) == ("no_space", True)
        assert str(state) in str(problem)
        assert "Make room there" in str(problem)
        carrier.run(["rm", str(state / "zeros")])
    with greeted(reach(cluster)):
        pass
    cluster.stop()
