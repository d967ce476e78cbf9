"""Host keys: fetched, confirmed, verified, and refused when they change."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import paramiko
import pytest
from paramiko.common import AUTH_SUCCESSFUL

from ops import processes, sshd, tiers
from workers.links import ssh, ssh_errors, ssh_transport

from .site import PASSWORD, USER, Site


def test_fetched_are_the_keys_of_all_types(site: Site) -> None:
    server = site.new_server()
    offered = ssh.fetch_host_keys(server.address, server.port)
    assert {key.fingerprint for key in offered.keys} == {
        sshd.fingerprint(path) for path in site.host_keys
    }
    assert {key.address for key in offered.keys} == {server.address}
    assert frozenset(offered.keys) == site.pins(address=server.address)
    assert "Accepted" not in server.log


@pytest.fixture
def loopback_6(record_testsuite_property: Callable[[str, object], None]) -> str:
    """The loopback of IPv6; where there is none that of IPv4, and the run says so."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        record_testsuite_property(tiers.NOT_HERE, "SSH was not tried over IPv6: none here.")
        return "127.0.0.1"
    return "::1"


def test_host_of_ipv6_is_fetched_from_and_logged_in_to(site: Site, loopback_6: str) -> None:
    server = site.new_server(address=loopback_6)
    offered = ssh.fetch_host_keys(loopback_6, server.port)
    assert frozenset(offered.keys) == site.pins(address=loopback_6)
    login = site.login(server, pins=frozenset(offered.keys))
    transport, address = ssh.open_transport(login)
    ssh.close(transport)
    assert address == loopback_6


def test_only_pinned_types_are_negotiated(site: Site) -> None:
    server = site.server()
    for path in site.host_keys:
        transport, _ = ssh.open_transport(site.login(server, pins=site.pins(path)))
        shown = transport.get_remote_server_key().get_base64()
        ssh.close(transport)
        assert shown == sshd.public_line(path).split()[1]


def test_changed_key_is_refused_before_any_secret_is_sent(site: Site) -> None:
    server = site.new_server()
    login = site.login(server, password="secret")
    server.stop()
    other = sshd.make_key(site.directory / "other-host", "ed25519")
    changed = site.new_server(keys=[other], port=server.port)
    with pytest.raises(ssh_errors.HostKeyChanged) as caught:
        ssh.open_transport(login)
    assert not caught.value.transient
    assert "CHANGED" in str(caught.value)
    assert sshd.fingerprint(site.host_keys[0]) in str(caught.value)
    assert "user" not in changed.log


def test_host_without_a_pinned_type_is_refused(site: Site) -> None:
    ed25519, ecdsa, _ = site.host_keys
    server = site.new_server(keys=[ecdsa])
    with pytest.raises(ssh_errors.HostKeyChanged, match="no key of a confirmed type"):
        ssh.open_transport(site.login(server, pins=site.pins(ed25519)))


class Nodes:
    """Two login nodes with different keys behind one name."""

    def __init__(self, site: Site) -> None:
        self.first = site.new_server(keys=site.host_keys[:1], address="127.0.0.2")
        other = sshd.make_key(site.directory / f"node-{self.first.port}", "rsa", bits=2048)
        self.second = site.new_server(
            keys=[other, site.host_keys[1]], address="127.0.0.3", port=self.first.port
        )
        self.other = other
        self.order = ["127.0.0.2", "127.0.0.3"]

    def resolve(self, host: str, port: int) -> list[str]:
        assert host == "login.example.org"
        return self.order


@pytest.fixture(scope="module")
def nodes(site: Site) -> Nodes:
    return Nodes(site)


def test_keys_of_all_nodes_are_fetched_and_good_for_each(site: Site, nodes: Nodes) -> None:
    offered = ssh.fetch_host_keys("login.example.org", nodes.first.port, resolver=nodes.resolve)
    assert {(key.address, key.key_type) for key in offered.keys} == {
        ("127.0.0.2", "ssh-ed25519"),
        ("127.0.0.3", "ssh-rsa"),
        ("127.0.0.3", "ecdsa-sha2-nistp256"),
    }
    login = ssh.Login(
        "login.example.org",
        "ada",
        nodes.first.port,
        site.key.read_text(),
        pins=frozenset(offered.keys),
    )
    for order in (["127.0.0.2", "127.0.0.3"], ["127.0.0.3", "127.0.0.2"]):
        nodes.order = order
        transport, address = ssh.open_transport(login, resolver=nodes.resolve)
        ssh.close(transport)
        assert address == order[0]


def test_key_that_only_one_node_shows_is_no_change_at_the_other(site: Site, nodes: Nodes) -> None:
    # The second node also has an ECDSA key, which nobody confirmed there.
    pins = site.pins(nodes.other, address="127.0.0.3") | site.pins(
        site.host_keys[0], address="127.0.0.2"
    )
    login = site.login(nodes.second, pins=pins)
    transport, _ = ssh.open_transport(login)
    ssh.close(transport)


def test_node_that_is_down_gives_way_to_the_next(site: Site, nodes: Nodes) -> None:
    login = ssh.Login(
        "login.example.org",
        "ada",
        nodes.first.port,
        site.key.read_text(),
        pins=site.pins(nodes.other),
    )
    nodes.order = ["127.0.0.4", "127.0.0.3"]
    transport, address = ssh.open_transport(login, resolver=nodes.resolve)
    ssh.close(transport)
    assert address == "127.0.0.3"
    offered = ssh.fetch_host_keys("login.example.org", login.port, resolver=nodes.resolve)
    assert len(offered.problems) == 1
    assert "127.0.0.4" in offered.problems[0]


class Admits(paramiko.ServerInterface):
    """Takes every password."""

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_auth_password(self, username: str, password: str) -> int:
        return AUTH_SUCCESSFUL


def test_another_key_in_a_later_exchange_ends_the_connection(site: Site, tmp_path: Path) -> None:
    paths = site.host_keys[0], sshd.make_key(tmp_path / "another", "ed25519")
    own, another = (paramiko.Ed25519Key.from_private_key_file(str(path)) for path in paths)
    made: list[paramiko.Transport] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            made.append(paramiko.Transport(listening.accept()[0]))
            made[0].add_server_key(own)
            made[0].start_server(threading.Event(), Admits())

        thread = threading.Thread(target=serve)
        thread.start()
        port = listening.getsockname()[1]
        login = ssh.Login("127.0.0.1", USER, port, password=PASSWORD, pins=site.pins())
        transport, _ = ssh.open_transport(login)
        thread.join()
    (server,) = made
    server.add_server_key(another)
    with contextlib.suppress(paramiko.SSHException, EOFError):
        server.renegotiate_keys()
    assert processes.wait_until(lambda: not transport.is_active(), 5)
    assert isinstance(transport.saved_exception, ssh_transport.HostKeyRefused)
    server.close()
