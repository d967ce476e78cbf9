"""Private keys as people paste them: mended where that is harmless, read, and never shown."""

from __future__ import annotations

import base64
import binascii
import io
import re
import struct

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from . import ssh_errors

SIZE_LIMIT = 64 << 10
BEGIN = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----")
PUBLIC_HALF = re.compile(r"\s*(ssh-(rsa|ed25519|dss)|ecdsa-sha2-\S+|sk-\S+) AAAA")
OPENSSH = "OPENSSH PRIVATE KEY"
LABELS = (OPENSSH, "RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY", "ENCRYPTED PRIVATE KEY")
PASTE_ANEW = "Paste the whole file again, with its BEGIN and END lines; it is the one without .pub."


def mend(text: str) -> str:
    """Undo what browsers and editors do to a pasted key: CRLF, and a lost last newline."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if not text or text.endswith("\n") else text + "\n"


def is_encrypted(text: str) -> bool:
    """Whether a passphrase is needed, by the key's own headers."""
    label = _label(text)
    if label == OPENSSH:
        return _openssh_cipher(text) not in (b"", b"none")
    return label == "ENCRYPTED PRIVATE KEY" or "Proc-Type: 4,ENCRYPTED" in text


def load(text: str, passphrase: str) -> paramiko.PKey:
    """The key of a login. Raises BadKey, PassphraseMissing, WrongPassphrase.

    RSA, ECDSA and Ed25519, in OpenSSH's format, PKCS#1, SEC 1 or PKCS#8; a passphrase is ignored
    where none is needed, as ssh does.
    """
    text = mend(text)
    label = _check(text)
    needs_passphrase = is_encrypted(text)
    if needs_passphrase and not passphrase:
        raise ssh_errors.PassphraseMissing(
            "The private key is encrypted: enter its passphrase in the password field."
        )
    secret = passphrase.encode() if needs_passphrase else None
    read = (
        serialization.load_ssh_private_key
        if label == OPENSSH
        else serialization.load_pem_private_key
    )
    try:
        key = read(text.encode(), secret)
    # `from None`: the library's words are about its arguments, which are secrets.
    except UnsupportedAlgorithm:
        raise _unsupported() from None
    except (ValueError, TypeError):
        if needs_passphrase:
            raise ssh_errors.WrongPassphrase(
                "The passphrase does not open the private key. Enter the passphrase of this key, "
                "or paste the key again if the passphrase is right."
            ) from None
        raise ssh_errors.BadKey(f"The private key is damaged. {PASTE_ANEW}") from None
    return _for_login(key)


def _for_login(key: object) -> paramiko.PKey:
    kind: type[paramiko.PKey]
    if isinstance(key, rsa.RSAPrivateKey):
        kind = paramiko.RSAKey
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        kind = paramiko.ECDSAKey
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        kind = paramiko.Ed25519Key
    else:
        raise _unsupported()
    try:
        # paramiko reads each kind from fewer formats than there are; OpenSSH's it reads for all.
        plain = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        ).decode()
        return kind.from_private_key(io.StringIO(plain))
    except (paramiko.SSHException, ValueError):
        raise _unsupported() from None


def _check(text: str) -> str:
    if not text.strip():
        raise ssh_errors.NoCredentials("There is no private key.")
    if len(text) > SIZE_LIMIT:
        raise ssh_errors.BadKey(f"This is too long for a private key. {PASTE_ANEW}")
    if PUBLIC_HALF.match(text):
        raise ssh_errors.BadKey(
            "This is the public half of a key, which belongs into authorized_keys on the cluster. "
            "Paste the private half, the file without .pub."
        )
    if text.lstrip().startswith("PuTTY-User-Key-File"):
        raise ssh_errors.BadKey(
            "This is a key in PuTTY's format. Open it in PuTTYgen, choose Conversions, "
            "Export OpenSSH key, and paste that."
        )
    label = _label(text)
    if label == "DSA PRIVATE KEY":
        raise _unsupported()
    if label not in LABELS:
        raise ssh_errors.BadKey(f"No private key is found in this text. {PASTE_ANEW}")
    if f"-----END {label}-----" not in text:
        raise ssh_errors.BadKey(f"The private key has no END line. {PASTE_ANEW}")
    return label


def _label(text: str) -> str:
    found = BEGIN.search(text)
    return found[1] if found else ""


def _openssh_cipher(text: str) -> bytes:
    """The cipher's name; b"" if the key is damaged.

    Source: https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.key
    """
    magic = b"openssh-key-v1\0"
    body = text.partition(f"-----BEGIN {OPENSSH}-----")[2].partition("-----END")[0]
    try:
        blob = base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        return b""
    if not blob.startswith(magic) or len(blob) < len(magic) + 4:
        return b""
    (length,) = struct.unpack_from(">I", blob, len(magic))
    return blob[len(magic) + 4 :][:length]


def _unsupported() -> ssh_errors.BadKey:
    return ssh_errors.BadKey(
        "Keys of this kind are not supported: RSA, ECDSA (nistp256, 384, 521) and Ed25519 are. "
        "Make a new one: ssh-keygen -t ed25519"
    )
