"""From nothing to a live link over a real sshd: the client put there, the daemon, a job."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

import pytest

from cluster_client.protocol import messages
from ops import processes
from workers.links import (
    bridge,
    client_archive,
    data,
    errors,
    provision,
    ssh_carrier,
    upload,
)

from .clusters import KEY, Cluster, bring_up, greeted, install_by_hand, outcomes, reach
from .site import Site, frozen

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
    assert stays is False


def test_login_that_comes_to_another_host_proves_nothing(
    make: Callable[..., Cluster], site: Site
) -> None:
    cluster = make("two-hosts")
    bring_up(cluster)
    other = site.new_server(host_name="another")
    again, stays = provision.outlives_login(
        cluster.carrier(),
        lambda: site.carrier(other, cluster.account.name),
        cluster.installation,
        KEY,
    )
    again.close()
    assert stays is None


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
        assert listener.has_ended.wait(9)  # the watchdog would need 15 s
        assert time.monotonic() - begun_at < 9
    cluster.server = site.new_server()
    channel = reach(cluster)
    with greeted(channel, deadline_s=1.5) as (_, listener, _welcome), frozen(cluster.server):
        begun_at = time.monotonic()
        assert listener.has_ended.wait(12)
        assert time.monotonic() - begun_at < 12
    assert cluster.status()["daemon"] is not None


def time_limit(seconds: float) -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) + seconds


# Installations ------------------------------------------------------------------------------------


def test_installation_by_hand_is_used_as_it_stands(
    make: Callable[..., Cluster], archive: client_archive.Archive
) -> None:
    cluster = make("by-hand")
    venv = install_by_hand(cluster)
    before = sorted(path.name for path in cluster.path.iterdir())
    bring_up(cluster)
    assert "Upload the client" not in outcomes(cluster)
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
    neighbour = client_archive.Archive(archive.data + b"of another portal")
    registry = cluster.path / "state" / "other.1" / "registry"
    registry.parent.mkdir(parents=True)
    registry.write_text(json.dumps({"build_hash": neighbour.build_hash}))
    left = [cluster.path / f"{name}.12-ab.new" for name in ("client.py", others[0].name)]
    for path in left:
        path.touch()
    os.utime(left[0], (0, 0))
    cluster.site.give(cluster.account, cluster.path)
    with cluster.carrier() as carrier:
        for one in [neighbour, *others]:
            upload.put(carrier, cluster.installation, one)
        # One that is young may be about to be made current by somebody else.
        assert len(list(cluster.path.glob("*.pyz"))) == 4
        for path in cluster.path.glob("*.pyz"):
            os.utime(path, (0, 0))
        upload.put(carrier, cluster.installation, others[-1])
        assert upload.look(carrier, cluster.installation, others[-1]).current == others[-1].name
        upload.use(carrier, cluster.installation, others[-2].name)
        assert upload.look(carrier, cluster.installation, others[-2]).is_ready(others[-2])
        with pytest.raises(errors.CannotConnect):
            upload.use(carrier, cluster.installation, others[0].name)
    kept = {path.name for path in cluster.path.glob("*.pyz")}
    assert kept == {neighbour.name, others[-1].name, others[-2].name}
    assert [path.exists() for path in left] == [False, True]


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
        # One that is gone altogether is as good as no client: it is put there again.
        (cluster.path / archive.name).unlink()
        with pytest.raises(errors.CannotConnect) as caught:
            bridge.open_client(carrier, cluster.installation, ("dial", KEY), 20)
        assert caught.value.reason == bridge.NO_CLIENT
    assert len(list(cluster.path.glob("*.damaged-*"))) == 1
