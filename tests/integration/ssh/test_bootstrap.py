"""From nothing to a live link over a real sshd: the client put there, the daemon, a job."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster_client.protocol import messages
from ops import processes
from workers.links import (
    bridge,
    carriers,
    client_archive,
    data,
    errors,
    provision,
    ssh_carrier,
    steps,
    upload,
)

from .clusters import KEY, Cluster, bring_up, greeted, outcomes, reach
from .site import Site, frozen

CHECKOUT = Path(__file__).parents[3]
HOME_OF_140_BYTES = "h" * 140


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


# The client ---------------------------------------------------------------------------------------


def test_archive_is_the_same_each_time(archive: client_archive.Archive) -> None:
    assert client_archive.build().data == archive.data
    assert archive.name.startswith("client-")


def test_nothing_becomes_a_link_and_twice_changes_nothing(
    make: Callable[..., Cluster], archive: client_archive.Archive
) -> None:
    cluster = make("from-nothing")
    assert bring_up(cluster) < 30
    assert outcomes(cluster) == {
        "Log in": "done",
        "Look at the client": "done",
        "Upload the client": "done",
        "Look for the daemon": "done",
        "Start the daemon": "done",
    }
    cluster.steps.clear()
    before = cluster.status()["daemon"]
    files = {path: path.stat().st_mtime_ns for path in cluster.path.iterdir()}
    assert bring_up(cluster) < 9
    assert outcomes(cluster) == {
        "Log in": "done",
        "Look at the client": "done",
        "Upload the client": "skipped",
        "Look for the daemon": "done",
    }
    after = cluster.status()["daemon"]
    assert (before["pid"], before["started_at"]) == (after["pid"], after["started_at"])
    for path in ("client.py", "current", archive.name):
        assert (cluster.path / path).stat().st_mtime_ns == files[cluster.path / path]


def test_daemon_outlives_the_login(
    make: Callable[..., Cluster], archive: client_archive.Archive
) -> None:
    cluster = make("outlives")
    bring_up(cluster)
    carrier = cluster.carrier()
    again, stays = provision.outlives_login(
        carrier,
        lambda: cluster.carrier(address=carrier.address),
        cluster.installation,
        KEY,
        cluster.steps.append,
    )
    again.close()
    assert stays
    assert cluster.steps[-1].detail == "It goes on."


def test_daemon_that_a_login_takes_along_is_noticed(
    make: Callable[..., Cluster], archive: client_archive.Archive
) -> None:
    cluster = make("taken-along")
    bring_up(cluster)
    carrier = cluster.carrier()

    def log_in_again() -> ssh_carrier.SshCarrier:
        # What a site does that ends what a session leaves behind.
        cluster.stop()
        return cluster.carrier()

    again, stays = provision.outlives_login(carrier, log_in_again, cluster.installation, KEY)
    again.close()
    assert not stays


def test_attached_daemon_lives_with_its_channel(
    make: Callable[..., Cluster], archive: client_archive.Archive
) -> None:
    cluster = make("attached")
    bring_up(cluster, is_attached=True)
    assert processes.wait_until(lambda: cluster.status()["daemon"] is None, 10)


def test_files_come_over_a_connection_of_their_own(
    make: Callable[..., Cluster], archive: client_archive.Archive
) -> None:
    cluster = make("files")
    bring_up(cluster)
    (tag,) = [path.name for path in (cluster.path / "jobs").glob("j*")]
    with cluster.carrier(is_control=False) as carrier:
        channel, marker = bridge.open_client(carrier, cluster.installation, ("files", KEY), 20)
        assert marker.status == "connected"
        hello = messages.Hello((1,), "portal", 1, purpose=messages.FILES)
        link = data.DataLink(channel, hello, time_limit(20))
        try:
            opened = link.ask(messages.Open("t1", 1, tag, "stdout.log"))
            assert isinstance(opened, messages.Opened), opened
            text = link.read_stream(1 << 20)
        finally:
            link.close()
    assert text.decode() == f"hello from {cluster.path / 'jobs' / tag}\n"


def test_link_ends_with_its_session_and_at_the_latest_by_the_watchdog(
    site: Site, make: Callable[..., Cluster], archive: client_archive.Archive
) -> None:
    cluster = make("cut")
    bring_up(cluster)
    cluster.server = site.new_server()
    channel = reach(cluster)
    with greeted(channel) as (_, listener, _welcome):
        begun_at = time.monotonic()
        cluster.server.stop()
        assert listener.has_ended.wait(5)
        assert time.monotonic() - begun_at < 3
    cluster.server = site.new_server()
    channel = reach(cluster)
    with greeted(channel, deadline_s=1.5) as (_, listener, _welcome), frozen(cluster.server):
        begun_at = time.monotonic()
        assert listener.has_ended.wait(10)
        assert time.monotonic() - begun_at < 6
    assert cluster.status()["daemon"] is not None


def time_limit(seconds: float) -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) + seconds


# Installations ------------------------------------------------------------------------------------


def test_installation_by_hand_is_used_as_it_stands(
    make: Callable[..., Cluster], archive: client_archive.Archive
) -> None:
    cluster = make("by-hand")
    ignored = shutil.ignore_patterns("__pycache__", "state", "jobs", "log", "venv")
    shutil.copytree(CHECKOUT / "cluster_client", cluster.path, ignore=ignored)
    venv = cluster.path / "venv"
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", str(venv)], check=True)
    (packages,) = venv.glob("lib/python*/site-packages")
    websockets = Path(client_archive._directory("websockets"))
    shutil.copytree(websockets, packages / "websockets")
    for info in websockets.parent.glob("websockets-*.dist-info"):
        shutil.copytree(info, packages / info.name)
    cluster.site.give(cluster.account, cluster.path)
    before = sorted(path.name for path in cluster.path.iterdir())
    bring_up(cluster)
    assert outcomes(cluster)["Upload the client"] == "skipped"
    (look,) = [step for step in cluster.steps if step.name == "Look at the client"]
    assert "by hand" in look.detail
    assert str(venv) in look.detail
    assert set(before) <= {path.name for path in cluster.path.iterdir()}
    with cluster.carrier() as carrier, pytest.raises(errors.CannotConnect, match="not ours"):
        upload.put(carrier, cluster.installation, archive)
    assert not list(cluster.path.glob("*.pyz"))


def test_upgrade_keeps_the_one_before_and_can_go_back(
    make: Callable[..., Cluster], archive: client_archive.Archive
) -> None:
    cluster = make("upgrade")
    others = [client_archive.Archive(archive.data + bytes([n])) for n in range(3)]
    with cluster.carrier() as carrier:
        for one in others:
            upload.put(carrier, cluster.installation, one)
        assert upload.look(carrier, cluster.installation, others[-1]).current == others[-1].name
        upload.use(carrier, cluster.installation, others[-2].name)
        assert upload.look(carrier, cluster.installation, others[-2]).is_ready(others[-2])
        with pytest.raises(errors.CannotConnect):
            upload.use(carrier, cluster.installation, others[0].name)
    kept = {path.name for path in cluster.path.glob("*.pyz")}
    assert kept == {others[-1].name, others[-2].name}


def test_archive_that_was_damaged_is_put_aside(
    make: Callable[..., Cluster], archive: client_archive.Archive
) -> None:
    cluster = make("damaged")
    with cluster.carrier() as carrier:
        upload.put(carrier, cluster.installation, archive)
        with (cluster.path / archive.name).open("r+b") as file:
            file.truncate(1000)
        assert not upload.look(carrier, cluster.installation, archive).is_ready(archive)
        upload.put(carrier, cluster.installation, archive)
        assert upload.look(carrier, cluster.installation, archive).is_ready(archive)
    assert len(list(cluster.path.glob("*.damaged-*"))) == 1


def test_home_path_of_140_bytes(
    make: Callable[..., Cluster], archive: client_archive.Archive
) -> None:
    cluster = make("long", home=HOME_OF_140_BYTES)
    assert len(str(cluster.account.home)) > 140
    bring_up(cluster)


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


def test_client_is_put_by_a_subprocess_too(
    short_directory: Path, archive: client_archive.Archive
) -> None:
    carrier = carriers.LocalCarrier()
    installation = bridge.Installation(str(short_directory / "a" / "client"))
    for expected in (["done", "done"], ["done", "skipped"]):
        seen: list[steps.Step] = []
        provision.ensure_client(carrier, installation, lambda: archive, seen.append)
        assert [step.outcome for step in seen] == expected


# What goes wrong ----------------------------------------------------------------------------------


def test_no_python_is_told(make: Callable[..., Cluster], archive: client_archive.Archive) -> None:
    cluster = make("pythonless")
    cluster.installation = bridge.Installation(str(cluster.path), "/nowhere/python3")
    with cluster.carrier() as carrier, pytest.raises(errors.CannotConnect) as caught:
        provision.ensure_client(
            carrier, cluster.installation, lambda: archive, cluster.steps.append
        )
    assert caught.value.reason == "no_python"
    assert [step.outcome for step in cluster.steps] == ["failed"]


def test_refused_directory_is_told(
    make: Callable[..., Cluster], archive: client_archive.Archive
) -> None:
    cluster = make("refused")
    for path in ("/proc/client", str(cluster.account.home / "file" / "client")):
        (cluster.account.home / "file").touch()
        installation = bridge.Installation(path)
        with cluster.carrier() as carrier, pytest.raises(errors.CannotConnect) as caught:
            upload.put(carrier, installation, archive)
        assert caught.value.reason in ("path_refused", "upload_failed"), caught.value
        assert path in str(caught.value)


def test_full_disk_is_told_and_nothing_half_stays(
    make: Callable[..., Cluster], archive: client_archive.Archive
) -> None:
    cluster = make("full")
    disk = cluster.site.accounts.small_disk
    cluster.installation = bridge.Installation(str(disk / "client"))
    with cluster.carrier() as carrier:
        with pytest.raises(errors.CannotConnect) as caught:
            upload.put(carrier, cluster.installation, archive)
        assert caught.value.reason == "disk_full"
        assert caught.value.pause_s > 0
        left = carrier.run(["find", str(disk), "-type", "f"])
    assert left.stdout == b""


@pytest.mark.parametrize("options", [{"MaxSessions": "1"}, {"DisableForwarding": "yes"}])
def test_narrow_server_is_enough(
    make: Callable[..., Cluster], archive: client_archive.Archive, options: dict[str, str]
) -> None:
    cluster = make(f"narrow-{min(options).lower()}", **options)
    bring_up(cluster)


def test_noisy_start_up_files_do_not_disturb(
    make: Callable[..., Cluster], archive: client_archive.Archive
) -> None:
    cluster = make("noisy")
    path = cluster.account.home / ".bashrc"
    path.write_text("echo Welcome\nread -r -t 0.3 answer\necho again >&2\nsleep 0.3\n")
    cluster.site.give(cluster.account, path)
    bring_up(cluster)
