"""Pasted keys: read, mended, or refused with the right words; never shown."""

from __future__ import annotations

import base64
import struct
import traceback
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

from controller import errors, key_derivation, private_keys

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


def same(key: private_keys.PrivateKey, other: Any) -> bool:
    """Whether two keys are one."""
    return text_of(key, PKCS8) == text_of(other, PKCS8)


def refused(text: str, passphrase: str, kind: type[Exception]) -> str:
    """The words of the refusal, in which no part of the secrets is."""
    with pytest.raises(kind) as caught:
        private_keys.load(text, passphrase)
    assert type(caught.value) is kind
    shown = "".join(traceback.format_exception(caught.value))
    for secret in (passphrase.strip(), *(line for line in text.splitlines() if len(line) > 40)):
        assert not secret or secret not in shown
    return str(caught.value)


def test_parameters_before_a_key_are_passed_over() -> None:
    # As `openssl ecparam -name prime256v1 -genkey` writes it.
    parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    key = KEYS["ecdsa-sha2-nistp256"]
    assert same(private_keys.load(parameters + text_of(key, TRADITIONAL), ""), key)


@pytest.mark.parametrize("passphrase", ["", PASSPHRASE], ids=["plain", "passphrase"])
@pytest.mark.parametrize(("name", "form"), FORMS, ids=str)
def test_every_kind_in_every_format_is_read(
    name: str, form: serialization.PrivateFormat, passphrase: str
) -> None:
    text = text_of(KEYS[name], form, passphrase)
    assert private_keys.is_encrypted(text) == bool(passphrase)
    assert same(private_keys.load(text, passphrase), KEYS[name])


def test_pasting_is_undone() -> None:
    text = text_of(KEYS["ssh-ed25519"], OPENSSH)
    for pasted in (text.strip(), text.replace("\n", "\r\n"), text.replace("\n", "\r"), f"\n{text}"):
        assert same(private_keys.load(pasted, ""), KEYS["ssh-ed25519"])
    assert private_keys.mend("a\r\nb") == "a\nb\n"
    assert private_keys.mend(" a \n") == " a \n"
    assert private_keys.mend("") == ""


def test_passphrase_that_is_not_needed_is_ignored() -> None:
    key = KEYS["ssh-ed25519"]
    assert same(private_keys.load(text_of(key, OPENSSH), "x"), key)


@pytest.mark.parametrize(("name", "form"), FORMS, ids=str)
def test_wrong_and_missing_passphrases_are_told_apart(
    name: str, form: serialization.PrivateFormat
) -> None:
    text = text_of(KEYS[name], form, PASSPHRASE)
    refused(text, "", errors.PassphraseMissing)
    refused(text, PASSPHRASE.strip(), errors.WrongPassphrase)


def test_what_is_no_key_is_told() -> None:
    good = text_of(KEYS["ssh-rsa"], OPENSSH)
    refused("", "", errors.NoCredentials)
    refused(" \n", "", errors.NoCredentials)
    assert "No private key" in refused("hello", "", errors.BadKey)
    assert "too long" in refused("x" * 100_000, "", errors.BadKey)
    assert "PuTTYgen" in refused("PuTTY-User-Key-File-3: ssh-rsa\n", "", errors.BadKey)
    public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPfw me@here\n"
    assert "public half" in refused(public, "", errors.BadKey)
    assert "END" in refused(good[:500], "", errors.BadKey)
    lines = good.splitlines()
    assert "damaged" in refused("\n".join(lines[:5] + lines[7:]), "", errors.BadKey)
    certificate = good.replace("OPENSSH PRIVATE KEY", "CERTIFICATE")
    refused(certificate, "", errors.BadKey)


def test_kinds_that_are_not_supported_are_told() -> None:
    key = dsa.generate_private_key(1024)
    for form in (TRADITIONAL, PKCS8):
        assert "not supported" in refused(text_of(key, form), "", errors.BadKey)
    brainpool = ec.generate_private_key(ec.BrainpoolP256R1())
    assert "not supported" in refused(text_of(brainpool, PKCS8), "", errors.BadKey)


def openssh_head(rounds: int) -> str:
    """The beginning of an encrypted key in OpenSSH's format: it suffices to refuse it."""

    def string(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    options = string(string(b"salt" * 4) + rounds.to_bytes(4, "big"))
    head = b"openssh-key-v1\0" + string(b"aes256-ctr") + string(b"bcrypt") + options
    body = base64.b64encode(head).decode()
    return f"-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n"


def test_a_key_that_would_take_minutes_to_open_is_refused_at_once() -> None:
    limit = private_keys.ROUNDS_LIMIT
    assert "rounds" in refused(openssh_head(limit + 1), PASSPHRASE, errors.BadKey)
    assert "rounds" in refused(openssh_head((1 << 32) - 1), "", errors.BadKey)
    refused(openssh_head(limit), PASSPHRASE, errors.WrongPassphrase)


def pkcs8_head(is_scrypt: bool, *numbers: int) -> str:
    """An encrypted PKCS#8 key up to its secret, with these parameters of its key derivation."""

    def der(tag: int, *parts: bytes) -> bytes:
        data = b"".join(parts)
        size = [len(data)] if len(data) < 128 else [0x81, len(data)]
        return bytes([tag, *size]) + data

    def named(oid: str, *parameters: bytes) -> bytes:
        return der(0x30, der(0x06, bytes.fromhex(oid)), der(0x30, *parameters))

    integers = [der(0x02, n.to_bytes(n.bit_length() // 8 + 1)) for n in numbers]
    hmac_sha256 = der(0x30, der(0x06, bytes.fromhex("2a864886f70d0209")), der(0x05))
    kdf = (
        named("2b06010401da47040b", der(0x04, b"salt" * 4), *integers)
        if is_scrypt
        else named("2a864886f70d01050c", der(0x04, b"salt" * 4), *integers, hmac_sha256)
    )
    aes = der(0x30, der(0x06, bytes.fromhex("60864801650304012a")), der(0x04, bytes(16)))
    info = der(0x30, named("2a864886f70d01050d", kdf, aes), der(0x04, bytes(64)))
    return pem(base64.b64encode(info).decode())


def pem(body: str, label: str = "ENCRYPTED PRIVATE KEY") -> str:
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"


@pytest.mark.parametrize(
    ("is_scrypt", "good", "bad"),
    [
        (False, (10_000,), (key_derivation.PBKDF2_LIMIT + 1,)),
        (False, (1,), (1 << 400,)),
        (True, (1 << 14, 8, 1), (1 << 14, 8, 9)),
        (True, (1 << 10, 8, 1), (1 << 40, 8, 1)),
    ],
)
def test_a_pkcs8_key_that_would_take_long_is_refused_at_once(
    is_scrypt: bool, good: tuple[int, ...], bad: tuple[int, ...]
) -> None:
    refused(pkcs8_head(is_scrypt, *good), PASSPHRASE, errors.WrongPassphrase)
    text = pkcs8_head(is_scrypt, *bad)
    assert "rounds" in refused(text, PASSPHRASE, errors.BadKey)
    hidden = pem("Proc-Type: 4,ENCRYPTED", "RSA PRIVATE KEY") + text
    refused(hidden, PASSPHRASE, errors.WrongPassphrase)


@pytest.mark.parametrize("body", ["", "!", "MIA=", "MIAAAA==", "MAMwAQI=", "MAkwBwYBATACBAA="])
def test_a_pkcs8_key_whose_rounds_cannot_be_read_is_damaged(body: str) -> None:
    assert "damaged" in refused(pem(body), PASSPHRASE, errors.BadKey)


def test_a_point_of_another_form_is_damaged() -> None:
    lines = text_of(KEYS["ecdsa-sha2-nistp256"], OPENSSH).splitlines()
    data = base64.b64decode("".join(lines[1:-1]))
    point = struct.pack(">I", 65) + b"\x04"
    assert point in data
    body = base64.b64encode(data.replace(point, point[:-1] + b"\x02")).decode()
    assert "damaged" in refused("\n".join([lines[0], body, lines[-1]]), "", errors.BadKey)


@pytest.mark.parametrize(
    "body", ["", "AAAA", "b3BlbnNzaC1rZXktdjEA", "b3BlbnNzaC1rZXktdjEAAAAA//8="]
)
def test_a_cut_key_is_damaged(body: str) -> None:
    text = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n"
    assert "damaged" in refused(text, "", errors.BadKey)
