"""Private keys as paramiko takes them."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from controller import errors
from workers.links import ssh_errors, ssh_keys

KEYS: dict[str, Any] = {
    "ssh-rsa": rsa.generate_private_key(65537, 2048),
    "ecdsa-sha2-nistp256": ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-sha2-nistp384": ec.generate_private_key(ec.SECP384R1()),
    "ecdsa-sha2-nistp521": ec.generate_private_key(ec.SECP521R1()),
    "ssh-ed25519": ed25519.Ed25519PrivateKey.generate(),
}
PKCS8 = serialization.PrivateFormat.PKCS8


@pytest.mark.parametrize("name", KEYS)
def test_every_kind_can_sign(name: str) -> None:
    no_passphrase = serialization.NoEncryption()
    text = KEYS[name].private_bytes(serialization.Encoding.PEM, PKCS8, no_passphrase).decode()
    key = ssh_keys.load(text, "")
    assert key.get_name() == name
    assert key.can_sign()


def test_every_refusal_is_one_of_a_login_with_the_same_words() -> None:
    assert set(ssh_keys.KINDS) == {kind.code for kind in errors.BadCredentials.__subclasses__()}
    with pytest.raises(ssh_errors.BadKey, match="No private key is found"):
        ssh_keys.load("hello", "")
    with pytest.raises(ssh_errors.NoCredentials, match="There is no private key"):
        ssh_keys.load("", "")
