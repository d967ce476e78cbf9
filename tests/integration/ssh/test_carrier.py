"""Commands over SSH: any login shell, any start-up files, narrow servers, broken connections."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops import processes, sshd
from workers.links import (
    clock,
    errors,
    remote_shell,
    ssh,
    ssh_carrier,
    ssh_channel,
    ssh_errors,
    ssh_transport,
)

from .site import USER, CountingGate, Site, frozen

ODD_WORDS = [
    "",
    " ",
    "a b",
    "it's",
    '"',
    "$HOME",
    "!x",
    "!!",
    "\\",
    "\\n",
    "a\nb",
    "*",
    "ä€",
    "`id`",
    "%d",
    "#",
    "~",
]
SHOW = 'for word do printf "<%s>" "$word"; done; cat'


@pytest.fixture
def carrier(site: Site) -> Iterator[ssh_carrier.SshCarrier]:
    made = site.carrier(site.server())
    yield made
    made.close()


@contextlib.contextmanager
def account(site: Site, name: str, shell: str = "/bin/bash", **files: str) -> Iterator[str]:
    """An account with start-up files: `bashrc` stands for .bashrc."""
    made = site.add_account(name, shell)
    for file, text in files.items():
        path = made.home / f".{file}"
        path.write_text(text)
        site.give(made, path)
    yield name


# Commands -----------------------------------------------------------------------------------------


def test_run_gives_status_output_and_last_words(carrier: ssh_carrier.SshCarrier) -> None:
    done = carrier.run(["/bin/sh", "-c", "cat; echo bad >&2; exit 7"], b"in\0put\n")
    assert (done.status, done.stdout, done.stderr) == (7, b"in\0put\n", "bad")
    done = carrier.run(["/bin/sh", "-c", "kill -9 $$"])
    assert done.status is None
    assert carrier.logins == 1


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/sh", "/bin/tcsh"])
def test_arguments_reach_the_command_whatever_the_login_shell(site: Site, shell: str) -> None:
    name = f"words-{Path(shell).name}"
    with account(site, name, shell), site.carrier(site.server(), name) as carrier:
        done = carrier.run(["/bin/sh", "-c", SHOW, "sh", *ODD_WORDS], b"and stdin!")
    assert done.status == 0, done
    shown = "".join(f"<{word}>" for word in ODD_WORDS) + "and stdin!"
    assert done.stdout.decode() == shown


def test_much_goes_both_ways(carrier: ssh_carrier.SshCarrier) -> None:
    data = os.urandom(3 << 20)
    done = carrier.run(["cat"], data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_flood_of_complaints_stops_nothing(carrier: ssh_carrier.SshCarrier) -> None:
    flood = "head -c 6000000 /dev/zero | tr '\\0' x >&2; echo; echo end >&2; echo done"
    done = carrier.run(["/bin/sh", "-c", flood])
    assert done.stdout == b"\ndone\n"
    assert done.stderr.endswith("end")
    assert len(done.stderr) <= ssh_transport.STDERR_BYTES


def test_slow_command_is_ended_there_too(site: Site, carrier: ssh_carrier.SshCarrier) -> None:
    begun_at = time.monotonic()
    with pytest.raises(errors.CannotConnect) as caught:
        carrier.run(["sleep", "987"], limit_s=0.5)
    assert caught.value.reason == "command_timeout"
    assert time.monotonic() - begun_at < 5
    assert processes.wait_until(lambda: not running("sleep\x00987"), 5)


def running(words: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if words in path.read_text(errors="replace"):
                found.append(path.parent.name)
    return found


# Start-up files -----------------------------------------------------------------------------------

NOISY = {
    "prints": "echo Welcome to the cluster; echo MOTD >&2; printf 'no line end'\n",
    "reads": "read -r answer; read -r -t 1 more\n",
    "drains": "while read -r -t 0.2 line; do :; done\n",
    "execs": "[ -z $AGAIN ] && AGAIN=1 exec /bin/tcsh\n",
    "execs-sh": "[ -z $AGAIN ] && AGAIN=1 exec /bin/sh\n",
    "sleeps": "sleep 10\n",
    "fails": "false; unset HOME; cd /; set -u; alias exec=echo\n",
}


@pytest.mark.parametrize("kind", list(NOISY))
def test_start_up_files_may_be_noisy(site: Site, kind: str) -> None:
    with (
        account(site, f"noisy-{kind}", bashrc=NOISY[kind]) as name,
        site.carrier(site.server(), name) as carrier,
    ):
        done = carrier.run(["cat"], b"what was sent")
    assert done.stdout == b"what was sent"


def test_noisy_tcsh_is_got_through(site: Site) -> None:
    noise = "echo hello\nset line = $<\nalias exec echo\n"
    with (
        account(site, "noisy-tcsh", "/bin/tcsh", tcshrc=noise) as name,
        site.carrier(site.server(), name) as carrier,
    ):
        assert carrier.run(["cat"], b"what was sent").stdout == b"what was sent"


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("waits", "sleep 30\n", "start_up_files"),
        ("swallows", "cat > /dev/null\n", "start_up_files"),
        ("exits", "echo The cluster is down for maintenance.; exit 1\n", "no_shell"),
        ("floods", "head -c 2000000 /dev/zero\nsleep 3\n", "start_up_files"),
    ],
)
def test_start_up_files_that_end_it_are_told(site: Site, kind: str, text: str, reason: str) -> None:
    with (
        account(site, f"bad-{kind}", bashrc=text) as name,
        site.carrier(site.server(), name, start_limit_s=1.5) as carrier,
        pytest.raises(errors.CannotConnect) as caught,
    ):
        carrier.run(["true"])
    assert caught.value.reason == reason
    assert kind != "exits" or "down for maintenance" in str(caught.value)


def test_password_expired_after_the_login_is_told(site: Site) -> None:
    site.add_account("older", password="pass word", is_password_expired=True)
    login = site.login(site.server(), "older", password="pass word")
    gate = CountingGate(0.0)
    with ssh_carrier.SshCarrier(login, gate=gate) as carrier:
        for _ in range(2):
            with pytest.raises(ssh_errors.PasswordExpired):
                carrier.run(["true"])
        assert (carrier.logins, carrier.connections) == (1, 0)
    assert gate.heard == ["good", "revoked: password_expired"]


# Narrow servers -----------------------------------------------------------------------------------


def test_one_session_is_enough(site: Site) -> None:
    with site.carrier(site.server(MaxSessions="1")) as carrier:
        for number in range(5):
            assert carrier.run(["echo", str(number)]).stdout == f"{number}\n".encode()
        assert carrier.logins == 1
        channels = [carrier.open(["cat"]) for _ in range(3)]
        assert carrier.logins == 3
        for channel in channels:
            channel.close()
    assert carrier.connections == 0


def test_account_without_sessions_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_carrier, "SETTLE_LIMIT_S", 0.5)
    with (
        site.carrier(site.server(MaxSessions="0")) as carrier,
        pytest.raises(ssh_errors.NoMoreSessions),
    ):
        carrier.run(["true"])


@pytest.mark.parametrize("option", ["AllowTcpForwarding=no", "DisableForwarding=yes"])
def test_forwarding_is_not_needed(site: Site, option: str) -> None:
    name, _, value = option.partition("=")
    with site.carrier(site.server(**{name: value})) as carrier:
        assert carrier.run(["echo", "here"]).stdout == b"here\n"


def test_data_spreads_over_connections(site: Site) -> None:
    with site.carrier(site.server(), is_control=False) as carrier:
        channels = [carrier.open(["cat"]) for _ in range(ssh_carrier.SESSIONS + 1)]
        assert carrier.logins == 2
        for number, channel in enumerate(channels):
            channel.send(str(number).encode())
            channel.settimeout(5)
            assert channel.recv(10) == str(number).encode()
        channels[0].abort()
        channels[1].send(b"more")
        assert channels[1].recv(10) == b"more"
        for channel in channels:
            channel.close()


def test_each_login_asks_the_budget(site: Site) -> None:
    gate = CountingGate(0.0, 12.0)
    server = site.server(MaxSessions="1")
    with (
        site.carrier(server, gate=gate) as carrier,
        contextlib.closing(carrier.open(["cat"])),
        pytest.raises(ssh_errors.BudgetSpent),
    ):
        carrier.open(["cat"])
    assert gate.heard == ["good"]


def test_refused_login_is_tried_once_whoever_asks(site: Site) -> None:
    server = site.new_server()
    login = site.login(server, key=site.user_key("ecdsa").read_text())
    refusals: list[BaseException] = []
    with ssh_carrier.SshCarrier(login) as carrier:

        def ask() -> None:
            try:
                carrier.open(["true"])
            except ssh_errors.LoginRefused as problem:
                refusals.append(problem)

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert len(refusals) == 6
    assert sshd.wait_for_log(server, "preauth")
    assert server.log.count("Connection from") == 1


def test_full_connection_is_waited_for_where_there_may_be_no_other(site: Site) -> None:
    with site.carrier(site.server(MaxSessions="1"), most_connections=1) as carrier:
        results: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: results.append(carrier.run(["echo", "x"]).stdout))
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert results == [b"x\n"] * 5
        with contextlib.closing(carrier.open(["cat"])), pytest.raises(errors.CannotConnect) as late:
            carrier.open(["cat"], clock.now() + 0.2)
        assert late.value.reason == "ssh_busy"
        assert carrier.logins == 1


def test_all_who_wait_for_a_login_hear_how_it_failed(site: Site) -> None:
    gate = CountingGate(9.0, takes_s=0.2)
    failures: list[ssh_errors.LoginError] = []
    with site.carrier(site.server(), gate=gate) as carrier:

        def ask() -> None:
            try:
                carrier.open(["true"])
            except ssh_errors.BudgetSpent as problem:
                failures.append(problem)

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert (len(failures), gate.answers) == (6, [])


# Broken connections -------------------------------------------------------------------------------


def test_killed_session_ends_readers(site: Site) -> None:
    server = site.new_server()
    with site.carrier(server) as carrier:
        channel = carrier.open(["cat"])
        timer = threading.Timer(0.2, server.stop)
        timer.start()
        channel.settimeout(5)
        assert channel.recv(1) == b""
        timer.join()
        with pytest.raises(OSError):
            channel.send(b"x")


def test_abort_frees_who_is_stuck(site: Site) -> None:
    server = site.new_server()
    with site.carrier(server) as carrier:
        channel = carrier.open(["cat"])
        outcome: list[BaseException] = []

        def flood() -> None:
            try:
                while True:
                    channel.send(b"x" * (1 << 20))
            except OSError as problem:
                outcome.append(problem)

        with frozen(server):
            sender = threading.Thread(target=flood)
            sender.start()
            sender.join(1)
            assert sender.is_alive()
            begun_at = time.monotonic()
            channel.abort()
            sender.join(10)
            assert not sender.is_alive()
            assert outcome
            channel.close()
            assert time.monotonic() - begun_at < 10


def test_close_of_a_stuck_connection_is_bounded(site: Site) -> None:
    server = site.new_server()
    with site.carrier(server) as carrier:
        channel = carrier.open(["cat"])
        with frozen(server):
            begun_at = time.monotonic()
            with pytest.raises(TimeoutError):
                channel.settimeout(0.2)
                channel.recv(1)
            channel.close()
            assert time.monotonic() - begun_at < ssh_channel.CLOSE_LIMIT_S + 2


def test_stuck_server_does_not_hold_an_open(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_carrier, "CHANNEL_LIMIT_S", 0.5)
    server = site.new_server()
    with site.carrier(server) as carrier:
        carrier.run(["true"])
        with frozen(server), pytest.raises(errors.CannotConnect) as caught:
            carrier.open(["cat"])
        assert caught.value.reason == "ssh_broken"


# Rekeys -------------------------------------------------------------------------------------------


def test_channels_that_end_during_a_rekey_end_well(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    # We ask for new keys after each MiB, and every command ends at about that moment: its CLOSE is
    # under way already. Unmended, paramiko's thread waits for itself and the connection is lost.
    monkeypatch.setattr("paramiko.packet.Packetizer.REKEY_BYTES", 1 << 20)
    with site.carrier(site.server()) as carrier:
        for extra in range(0, 40_000, 1_600):
            size = (1 << 20) + extra
            done = carrier.run(["head", "-c", str(size), "/dev/zero"], limit_s=20)
            assert len(done.stdout) == size
        assert carrier.logins == 1


def test_many_channels_survive_rekeys_from_both_sides(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paramiko.packet.Packetizer.REKEY_BYTES", 700_000)
    data = os.urandom(2 << 20)
    with site.carrier(site.server(RekeyLimit="1M")) as carrier:
        results: list[bool] = []

        def echo() -> None:
            results.append(carrier.run(["cat"], data, limit_s=60).stdout == data)

        threads = [threading.Thread(target=echo) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert results == [True] * 4
        assert carrier.logins == 1


# What is sent -------------------------------------------------------------------------------------


def test_command_shows_no_shell_anything_special() -> None:
    text = remote_shell.command(["/bin/sh", "-c", "!\n'\"$x"], "0" * 16).text
    inner = text.removeprefix("exec /bin/sh -c '").removesuffix("'")
    assert not set("!'\n") & set(inner)


def test_transport_is_tuned(site: Site) -> None:
    transport, _ = ssh.open_transport(site.login(site.server(), USER))
    assert transport.local_cipher == transport.remote_cipher == "aes128-gcm@openssh.com"
    ssh.close(transport)
