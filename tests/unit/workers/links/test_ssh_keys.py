"""Pasted keys: read, mended, or refused with the right words; never shown."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

from workers.links import ssh_errors, ssh_keys

PASSPHRASE = " pass phrase ü "
OPENSSH = serialization.PrivateFormat.OpenSSH
TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL
PKCS8 = serialization.PrivateFormat.PKCS8
KEYS: dict[str, Any] = {
    "ssh-rsa": rsa.generate_private_key(65537, 2048),
    "ecdsa-sha2-nistp256": ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-sha2-nistp384": ec.generate_private_key(ec.SECP384R1()),
    "ecdsa-sha2-nistp521": ec.generate_private_key(ec.SECP521R1()),
    "ssh-ed25519": ed25519.Ed25519PrivateKey.generate(),
}
FORMS = [
    (name, form)
    for name in KEYS
    for form in (OPENSSH, TRADITIONAL, PKCS8)
    if not (name == "ssh-ed25519" and form is TRADITIONAL)
]


def text_of(key: Any, form: serialization.PrivateFormat, passphrase: str = "") -> str:
    encryption: Any = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
        if form is OPENSSH:
            encryption = form.encryption_builder().kdf_rounds(1).build(passphrase.encode())
    data: bytes = key.private_bytes(serialization.Encoding.PEM, form, encryption)
    return data.decode()


def refused(text: str, passphrase: str, kind: type[Exception]) -> str:
    """The words of the refusal, in which no part of the secrets is."""
    with pytest.raises(kind) as caught:
        ssh_keys.load(text, passphrase)
    assert type(caught.value) is kind
    shown = "".join(traceback.format_exception(caught.value))
    for secret in (passphrase.strip(), *(line for line in text.splitlines() if len(line) > 40)):
        assert not secret or secret not in shown
    return str(caught.value)


@pytest.mark.parametrize("passphrase", ["", PASSPHRASE], ids=["plain", "passphrase"])
@pytest.mark.parametrize(("name", "form"), FORMS, ids=str)
def test_every_kind_in_every_format_is_read(
    name: str, form: serialization.PrivateFormat, passphrase: str
) -> None:
    text = text_of(KEYS[name], form, passphrase)
    assert ssh_keys.is_encrypted(text) == bool(passphrase)
    key = ssh_keys.load(text, passphrase)
    assert key.get_name() == name
    assert key.can_sign()


def test_pasting_is_undone() -> None:
    text = text_of(KEYS["ssh-ed25519"], OPENSSH)
    for pasted in (text.strip(), text.replace("\n", "\r\n"), text.replace("\n", "\r"), f"\n{text}"):
        assert ssh_keys.load(pasted, "").get_name() == "ssh-ed25519"
    assert ssh_keys.mend("a\r\nb") == "a\nb\n"
    assert ssh_keys.mend(" a \n") == " a \n"
    assert ssh_keys.mend("") == ""


def test_passphrase_that_is_not_needed_is_ignored() -> None:
    assert ssh_keys.load(text_of(KEYS["ssh-ed25519"], OPENSSH), "x").can_sign()


@pytest.mark.parametrize(("name", "form"), FORMS, ids=str)
def test_wrong_and_missing_passphrases_are_told_apart(
    name: str, form: serialization.PrivateFormat
) -> None:
    text = text_of(KEYS[name], form, PASSPHRASE)
    refused(text, "", ssh_errors.PassphraseMissing)
    refused(text, PASSPHRASE.strip(), ssh_errors.WrongPassphrase)


def test_what_is_no_key_is_told() -> None:
    good = text_of(KEYS["ssh-rsa"], OPENSSH)
    refused("", "", ssh_errors.NoCredentials)
    refused(" \n", "", ssh_errors.NoCredentials)
    assert "No private key" in refused("hello", "", ssh_errors.BadKey)
    assert "too long" in refused("x" * 100_000, "", ssh_errors.BadKey)
    assert "PuTTYgen" in refused("PuTTY-User-Key-File-3: ssh-rsa\n", "", ssh_errors.BadKey)
    public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPfw me@here\n"
    assert "public half" in refused(public, "", ssh_errors.BadKey)
    assert "END" in refused(good[:500], "", ssh_errors.BadKey)
    lines = good.splitlines()
    assert "damaged" in refused("\n".join(lines[:5] + lines[7:]), "", ssh_errors.BadKey)
    certificate = good.replace("OPENSSH PRIVATE KEY", "CERTIFICATE")
    refused(certificate, "", ssh_errors.BadKey)


def test_kinds_that_are_not_supported_are_told() -> None:
    key = dsa.generate_private_key(1024)
    for form in (TRADITIONAL, PKCS8):
        assert "not supported" in refused(text_of(key, form), "", ssh_errors.BadKey)
    brainpool = ec.generate_private_key(ec.BrainpoolP256R1())
    assert "not supported" in refused(text_of(brainpool, PKCS8), "", ssh_errors.BadKey)
