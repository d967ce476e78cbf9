"""Private keys as paramiko takes them; `controller.private_keys` reads them."""

from __future__ import annotations

import io

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from controller import errors, private_keys

from . import ssh_errors

KINDS = {
    kind.code: kind
    for kind in (
        ssh_errors.BadKey,
        ssh_errors.NoCredentials,
        ssh_errors.PassphraseMissing,
        ssh_errors.WrongPassphrase,
    )
}


def load(text: str, passphrase: str) -> paramiko.PKey:
    """The key of a login. Raises BadKey, NoCredentials, PassphraseMissing, WrongPassphrase."""
    try:
        return _for_login(private_keys.load(text, passphrase))
    except errors.BadCredentials as problem:
        raise KINDS[problem.code](str(problem)) from None


def _for_login(key: private_keys.PrivateKey) -> paramiko.PKey:
    kind: type[paramiko.PKey] = paramiko.Ed25519Key
    if isinstance(key, rsa.RSAPrivateKey):
        kind = paramiko.RSAKey
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        kind = paramiko.ECDSAKey
    # paramiko reads each kind from fewer formats than there are; OpenSSH's it reads for all.
    plain = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    ).decode()
    try:
        return kind.from_private_key(io.StringIO(plain))
    except (paramiko.SSHException, ValueError):
        raise ssh_errors.BadKey(
            "The private key can't be used for SSH. Make a new one: ssh-keygen -t ed25519"
        ) from None
