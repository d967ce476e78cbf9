"""`manage.py hpc cluster` over SSH: secrets from files, host keys, procedures step by step."""

from __future__ import annotations

import io
import json
import os
import pty
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from controller.models import HostKey, HpcCluster, Kind, ProcedureState
from controller.services import clusters, host_keys, procedures

from .test_hpc_command import Result, assert_refused, hpc

SSH = ("--host", "login.example.org", "--user", "ada", "--client-path", "/opt/hpc")
PASSWORD = " pass word \t"
ED25519 = ("ssh-ed25519", "SHA256:" + 43 * "A", "10.0.0.7")
RSA = ("ssh-rsa", "SHA256:" + 43 * "B", "10.0.0.7")


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    return path


@pytest.fixture
def remote(db: None) -> HpcCluster:
    """A cluster over SSH with two host keys, neither of them confirmed."""
    made = clusters.register(
        name="far",
        host_name="login.example.org",
        username="ada",
        client_path="/opt/hpc",
        password=PASSWORD,
    )
    host_keys.record(made.pk, [ED25519, RSA])
    return made


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A terminal as stdin; the function types on it."""
    leader, follower = pty.openpty()
    with os.fdopen(follower, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield lambda text: os.write(leader, text.encode()) and None
    os.close(leader)


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Have stdin be a pipe with this data."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def confirmed() -> set[str]:
    rows = HostKey.objects.exclude(confirmed_at=None)
    return set(rows.values_list("key_type", flat=True))


def assert_wrong_usage(result: Result, word: str) -> None:
    assert (result.status, result.out) == (2, "")
    assert word in result.err


@pytest.mark.parametrize(
    "words",
    [
        ("add", "far", *SSH, "--python", "p\udcff", "--password-file"),
        ("add", "far", *SSH, "--setup-commands", "module \udcff", "--password-file"),
        ("set", "f\udcff", "--password-file"),
    ],
)
def test_bytes_that_are_no_text_are_wrong_usage(
    db: None, password_file: Path, words: tuple[str, ...]
) -> None:
    result = hpc("cluster", *words, password_file)
    assert_wrong_usage(result, "no text in UTF-8")


def test_where_no_key_is_known_none_is_confirmed(remote: HpcCluster) -> None:
    HostKey.objects.all().delete()
    result = hpc("cluster", "host-key", "far", "--confirm-all", "--yes")
    assert_refused(result, "shows no host key", "--fetch")


def test_a_cluster_is_registered_with_a_password_from_a_file(db: None, password_file: Path) -> None:
    result = hpc("cluster", "add", "far", *SSH, "--password-file", password_file)
    assert (result.status, "host-key far --fetch" in result.err) == (0, True)
    assert HpcCluster.objects.get().password.reveal() == PASSWORD
    shown = hpc("cluster", "show", "far", "--json").out + hpc("cluster", "show", "far").out
    assert PASSWORD.strip() not in shown
    (described,) = json.loads(hpc("cluster", "list", "--json").out)
    assert (described["has_key"], described["has_password"]) == (False, True)


def test_a_key_from_stdin_is_checked_before_it_is_stored(
    remote: HpcCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, b"ssh-ed25519 AAAA far\n")
    assert_refused(hpc("cluster", "set", "far", "--key-file", "-"), "key:")
    stdin(monkeypatch, b"\xff\xfe")
    assert_refused(hpc("cluster", "set", "far", "--key-file", "-"), "private key in -", "UTF-8")
    stdin(monkeypatch, b"x" * 70000)
    assert_refused(hpc("cluster", "set", "far", "--key-file", "-"), "longer than 65536 bytes")
    assert_refused(hpc("cluster", "set", "far", "--key-file", "/no/such"), "/no/such")
    remote.refresh_from_db()
    assert (bool(remote.key), remote.password.reveal()) == (False, PASSWORD)


def test_a_registered_cluster_is_changed_in_what_is_named(
    remote: HpcCluster, password_file: Path
) -> None:
    password_file.write_text("other\r\n")
    words = ("--port", "2222", "--umask", "0077", "--password-file", password_file)
    assert hpc("cluster", "set", "far", *words).out == "Cluster far: changed port, password.\n"
    remote.refresh_from_db()
    assert (remote.port, remote.password.reveal()) == (2222, "other")
    assert_refused(hpc("cluster", "set", "far", "--host", "a b"), "host_name")
    assert_refused(hpc("cluster", "set", "far", "--remove-password"), "key:")
    assert_wrong_usage(hpc("cluster", "set", "far"), "cluster set --help")
    both = ("--key-file", "-", "--password-file", "-")
    assert_wrong_usage(hpc("cluster", "set", "far", *both), "stdin")


def test_a_password_is_asked_for_at_a_terminal_alone(
    remote: HpcCluster, monkeypatch: pytest.MonkeyPatch, terminal: Callable[[str], None]
) -> None:
    monkeypatch.setattr("getpass.getpass", lambda _: sys.stdin.readline().removesuffix("\n"))
    terminal("typed in\n")
    assert hpc("cluster", "set", "far", "--ask-password").status == 0
    remote.refresh_from_db()
    assert remote.password.reveal() == "typed in"
    stdin(monkeypatch, b"piped\n")
    assert_wrong_usage(hpc("cluster", "set", "far", "--ask-password"), "--password-file")


def test_host_keys_are_shown_confirmed_and_withdrawn_by_fingerprint(remote: HpcCluster) -> None:
    shown = hpc("cluster", "host-key", "far").out
    assert ED25519[1] in shown and shown.count("not confirmed") == 2
    for wrong in ("SHA256:AAAA", "ssh-ed25519", "SHA256:" + 43 * "C"):
        assert_refused(hpc("cluster", "host-key", "far", "--confirm", wrong), wrong, "in full")
    done = hpc("cluster", "host-key", "far", "--confirm", ED25519[1], "--json")
    assert (done.status, done.err) == (0, "1 host key confirmed.\n")
    assert [key["is_confirmed"] for key in json.loads(done.out)] == [True, False]
    assert "confirmed at 20" in hpc("cluster", "host-key", "far", "--withdraw", ED25519[1]).err + (
        hpc("cluster", "host-key", "far", "--confirm", ED25519[1]).out
    )
    hpc("cluster", "host-key", "far", "--withdraw", ED25519[1])
    assert confirmed() == set()


def test_all_keys_are_confirmed_by_a_yes_at_a_terminal_or_on_the_command_line(
    remote: HpcCluster, monkeypatch: pytest.MonkeyPatch, terminal: Callable[[str], None]
) -> None:
    terminal("y\n")
    result = hpc("cluster", "host-key", "far", "--confirm-all")
    assert (result.status, confirmed()) == (1, set())
    terminal("yes\n")
    assert hpc("cluster", "host-key", "far", "--confirm-all").status == 0
    assert confirmed() == {"ssh-ed25519", "ssh-rsa"}
    HostKey.objects.update(confirmed_at=None)
    HostKey.objects.filter(key_type="ssh-rsa").update(is_offered=False)
    stdin(monkeypatch, b"yes\n")
    assert_wrong_usage(hpc("cluster", "host-key", "far", "--confirm-all"), "--confirm SHA256:")
    assert hpc("cluster", "host-key", "far", "--confirm-all", "--yes").status == 0
    assert confirmed() == {"ssh-ed25519"}
    assert "already" in hpc("cluster", "host-key", "far", "--confirm-all", "--yes").err


def test_a_wait_for_a_worker_has_its_limit(remote: HpcCluster) -> None:
    result = hpc("cluster", "host-key", "far", "--fetch", "--limit", "0.1")
    assert_refused(result, "fetch the host keys", "celery -A workers", "stays asked for")
    assert remote.procedures.get().state == ProcedureState.WAITING


def works(cluster: HpcCluster, kind: Kind, reason: str) -> None:
    """What a worker does with the procedure once it is asked for."""
    while (claimed := procedures.claim_for(cluster.pk, kind, "w")) is None:
        connection.close()
    procedures.note(claimed.pk, "log in", "done", 0.25, "as ada")
    procedures.note(claimed.pk, "home", "failed" if reason else "done", 0.0, "\x1b[2Jsaid")
    procedures.finish(claimed.pk, reason, "Make room." if reason else "All is well.")
    connection.close()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("kind", "words", "reason"),
    [
        (Kind.TEST, ("test", "far"), ""),
        (Kind.TEST, ("test", "far", "--json"), "disk_full"),
        (Kind.BOOTSTRAP, ("bootstrap", "far", "--wait"), "disk_full"),
    ],
)
def test_steps_are_told_as_they_come(
    transactional_db: None, kind: Kind, words: tuple[str, ...], reason: str, request: Any
) -> None:
    remote: HpcCluster = request.getfixturevalue("remote")
    host_keys.confirm(remote, list(remote.host_keys.values_list("pk", flat=True)))
    worker = threading.Thread(target=works, args=(remote, kind, reason))
    worker.start()
    result = hpc("cluster", *words, "--limit", "20")
    worker.join()
    told = result.err if "--json" in words else result.out
    assert "done         0.25  log in: as ada\n" in told
    assert "home: said" in told
    assert (result.status, "Make room." in result.err) == ((1, True) if reason else (0, False))
    if "--json" in words:
        assert [s["name"] for s in json.loads(result.out)["steps"]] == ["log in", "home"]
    shown = hpc("cluster", "show", "far").out
    assert ("Make room." if reason else "All is well.") in shown
    assert "0 of 6 in the last minute, 0 of 30 in the last hour" in shown
