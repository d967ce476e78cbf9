"""What was entered to log in with: taken as it is meant, and refused as a login would."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from pytest_django import Settings

from controller import errors
from controller.models import HpcCluster
from controller.services import credentials
from workers.links import ssh_errors, ssh_login

PASSPHRASE = " pass phrase ü "
PRIVATE = ed25519.Ed25519PrivateKey.generate()
OPENSSH = serialization.PrivateFormat.OpenSSH
PEM = serialization.Encoding.PEM
PLAIN = PRIVATE.private_bytes(PEM, OPENSSH, serialization.NoEncryption()).decode()
ENCRYPTED = PRIVATE.private_bytes(
    PEM, OPENSSH, OPENSSH.encryption_builder().kdf_rounds(1).build(PASSPHRASE.encode())
).decode()
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPfw me@here\n"
PUTTY = "PuTTY-User-Key-File-3: ssh-rsa\n"
WITHOUT_END = PLAIN.partition("-----END")[0]


def cluster(key: str = "", password: str = "", carrier: str = "ssh") -> HpcCluster:
    return HpcCluster(name="north", carrier=carrier, key=key, password=password)


@pytest.mark.parametrize(
    ("key", "password"), [(ENCRYPTED, PASSPHRASE), (PLAIN, ""), (PLAIN, "unused"), ("", PASSPHRASE)]
)
def test_the_three_ways_to_log_in_are_taken(key: str, password: str) -> None:
    assert credentials.check(cluster(key, password)) == {}
    ssh_login.Credentials(key, password)


@pytest.mark.parametrize(
    ("key", "password", "column", "word"),
    [
        ("", "", "key", "neither"),
        (" \n", "", "key", "neither"),
        (ENCRYPTED, "", "password", "passphrase"),
        (ENCRYPTED, PASSPHRASE.strip(), "password", "passphrase"),
        (PUBLIC, "", "key", "public half"),
        (PUTTY, "", "key", "PuTTYgen"),
        (WITHOUT_END, "", "key", "END"),
        ("hello", PASSPHRASE, "key", "No private key"),
    ],
)
def test_what_no_login_can_use_is_refused_in_the_words_of_a_login(
    key: str, password: str, column: str, word: str
) -> None:
    (found,) = credentials.check(cluster(key, password)).items()
    with pytest.raises(ssh_errors.BadCredentials) as caught:
        ssh_login.Credentials(key, password)
    assert found == (column, str(caught.value))
    assert word in found[1]


@pytest.mark.parametrize("password", ["x" * 1025, "ü" * 513, "a\0b"])
def test_a_password_that_no_server_takes_is_refused(password: str) -> None:
    assert set(credentials.check(cluster("", password))) == {"password"}


def test_a_stored_secret_that_no_key_opens_is_told(settings: Settings) -> None:
    one = cluster(PLAIN, PASSPHRASE)
    settings.HPC_SECRET_KEYS = Fernet.generate_key().decode()
    problems = credentials.check(one)
    assert set(problems) == {"key", "password"}
    assert all("HPC_SECRET_KEYS" in sentence for sentence in problems.values())
    credentials.change(one, PLAIN, "")
    assert credentials.check(one) == {}


def test_a_local_cluster_needs_none() -> None:
    assert credentials.check(cluster(carrier="local")) == {}


def test_what_is_not_entered_stays() -> None:
    one = cluster(PLAIN, PASSPHRASE)
    credentials.change(one, None, None)
    assert (one.key.reveal(), one.password.reveal()) == (PLAIN, PASSPHRASE)
    credentials.change(one, None, "")
    assert (one.key.reveal(), one.password.reveal()) == (PLAIN, "")
    credentials.change(one, "", PASSPHRASE)
    assert (one.key.reveal(), one.password.reveal()) == ("", PASSPHRASE)


def test_a_pasted_key_is_mended_and_a_password_is_not() -> None:
    one = cluster()
    credentials.change(one, PLAIN.strip().replace("\n", "\r\n"), "  pass\r\n")
    assert (one.key.reveal(), one.password.reveal()) == (PLAIN, "  pass\r\n")


def test_the_passphrase_of_a_key_that_is_taken_away_is_not_kept_as_a_password() -> None:
    one = cluster(ENCRYPTED, PASSPHRASE)
    credentials.change(one, " ", None)
    assert (one.key.reveal(), one.password.reveal()) == ("", "")
    only_password = cluster("", PASSPHRASE)
    credentials.change(only_password, "", None)
    assert only_password.password.reveal() == PASSPHRASE


def test_text_that_can_not_be_sealed_is_refused() -> None:
    one = cluster(PLAIN)
    with pytest.raises(errors.Invalid):
        credentials.change(one, None, "\udc80")
    assert one.password.reveal() == ""
