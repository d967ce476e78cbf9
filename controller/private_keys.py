"""Private keys as people paste them: mended where that is harmless, read, and never shown."""

from __future__ import annotations

import base64
import re
import struct

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from django.views.decorators.debug import sensitive_variables

from . import errors, key_derivation

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

SIZE_LIMIT = 64 << 10
ROUNDS_LIMIT = 200
"""ssh-keygen's -a, at about 10 ms each: a form computes for two seconds at most.

Its default is 24, what guides recommend 100.
"""
CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})
"""What SSH calls nistp256, 384 and 521. Source: RFC 5656, section 10.1."""
BEGIN = re.compile(r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----")
PUBLIC_HALF = re.compile(r"\s*(ssh-(rsa|ed25519|dss)|ecdsa-sha2-\S+|sk-\S+) AAAA")
OPENSSH = "OPENSSH PRIVATE KEY"
ENCRYPTED_PKCS8 = "ENCRYPTED PRIVATE KEY"
LABELS = (OPENSSH, "RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY", ENCRYPTED_PKCS8)
NEITHER = "There is neither a private key nor a password: enter one of them."
PASTE_ANEW = "Paste the whole file again, with its BEGIN and END lines; it is the one without .pub."


def mend(text: str) -> str:
    """Undo what browsers and editors do to a pasted key: CRLF, and a lost last newline."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if not text or text.endswith("\n") else text + "\n"


def is_encrypted(text: str) -> bool:
    """Whether a passphrase is needed, by the key's own headers."""
    label = _label(text)
    if label == OPENSSH:
        return _openssh_encryption(text)[0] not in (b"", b"none")
    return label == ENCRYPTED_PKCS8 or "Proc-Type: 4,ENCRYPTED" in text


@sensitive_variables()
def load(text: str, passphrase: str) -> PrivateKey:
    """The key of a login. Raises BadKey, NoCredentials, PassphraseMissing, WrongPassphrase.

    RSA, ECDSA and Ed25519, in OpenSSH's format, PKCS#1, SEC 1 or PKCS#8; a passphrase is ignored
    where none is needed, as ssh does.
    """
    text = mend(text)
    label = _check(text)
    text = _block(text, label)
    needs_passphrase = is_encrypted(text)
    if needs_passphrase and not passphrase:
        raise errors.PassphraseMissing(
            "The private key is encrypted: enter its passphrase in the password field."
        )
    secret = passphrase.encode() if needs_passphrase else None
    read = (
        serialization.load_ssh_private_key
        if label == OPENSSH
        else serialization.load_pem_private_key
    )
    try:
        return _supported(read(text.encode(), secret))
    # `from None`: the library's words are about its arguments, which are secrets.
    except UnsupportedAlgorithm:
        raise _unsupported() from None
    except (ValueError, TypeError, NotImplementedError):  # the last for a compressed point
        if needs_passphrase:
            raise errors.WrongPassphrase(
                "The passphrase does not open the private key. Enter the passphrase of this key, "
                "or paste the key again if the passphrase is right."
            ) from None
        raise errors.BadKey(f"The private key is damaged. {PASTE_ANEW}") from None


def _supported(key: object) -> PrivateKey:
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name not in CURVES:
        raise _unsupported()
    if not isinstance(key, PrivateKey):
        raise _unsupported()
    return key


def _check(text: str) -> str:
    if not text.strip():
        raise errors.NoCredentials("There is no private key.")
    if len(text) > SIZE_LIMIT:
        raise errors.BadKey(f"This is too long for a private key. {PASTE_ANEW}")
    if PUBLIC_HALF.match(text):
        raise errors.BadKey(
            "This is the public half of a key, which belongs into authorized_keys on the cluster. "
            "Paste the private half, the file without .pub."
        )
    if text.lstrip().startswith("PuTTY-User-Key-File"):
        raise errors.BadKey(
            "This is a key in PuTTY's format. Open it in PuTTYgen, choose Conversions, "
            "Export OpenSSH key, and paste that."
        )
    label = _label(text)
    if label == "DSA PRIVATE KEY":
        raise _unsupported()
    if label not in LABELS:
        raise errors.BadKey(f"No private key is found in this text. {PASTE_ANEW}")
    if f"-----END {label}-----" not in text:
        raise errors.BadKey(f"The private key has no END line. {PASTE_ANEW}")
    _refuse_too_dear(text, label)
    return label


def _refuse_too_dear(text: str, label: str) -> None:
    """Nothing is computed that the key alone asks for."""
    if label == OPENSSH and _openssh_encryption(text)[1] > ROUNDS_LIMIT:
        raise errors.BadKey(
            f"The private key is encrypted with more than {ROUNDS_LIMIT} rounds, and would take"
            " too long to open. Encrypt it with fewer: ssh-keygen -p -a 100 -f FILE"
        )
    if label != ENCRYPTED_PKCS8:
        return
    try:
        is_too_dear = key_derivation.is_too_dear(_body(text, label))
    except ValueError:
        raise errors.BadKey(f"The private key is damaged. {PASTE_ANEW}") from None
    if is_too_dear:
        raise errors.BadKey(
            "The private key is encrypted with so many rounds that it would take too long to open."
            " Encrypt it with fewer: openssl pkcs8 -topk8 -in FILE -out NEW, and paste NEW."
        )


def _block(text: str, label: str) -> str:
    """From BEGIN to END: what was checked is all that the library sees."""
    end = f"-----END {label}-----"
    return f"-----BEGIN {label}-----{_inner(text, label)}{end}\n"


def _inner(text: str, label: str) -> str:
    return text.partition(f"-----BEGIN {label}-----")[2].partition(f"-----END {label}-----")[0]


def _body(text: str, label: str) -> bytes:
    """What is between BEGIN and END, decoded. Raises ValueError."""
    return base64.b64decode("".join(_inner(text, label).split()), validate=True)


def _label(text: str) -> str:
    found = BEGIN.search(text)
    return found[1] if found else ""


def _openssh_encryption(text: str) -> tuple[bytes, int]:
    """The cipher's name and bcrypt's rounds; b"" and 0 if the key is damaged.

    Source: https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.key
    """
    magic = b"openssh-key-v1\0"
    try:
        blob = _body(text, OPENSSH)
        if not blob.startswith(magic):
            return b"", 0
        cipher, rest = _string(blob[len(magic) :])
        kdf, rest = _string(rest)
        options, _ = _string(rest)
        rounds = struct.unpack(">I", _string(options)[1])[0] if kdf == b"bcrypt" else 0
    except (ValueError, struct.error):
        return b"", 0
    return cipher, rounds


def _string(data: bytes) -> tuple[bytes, bytes]:
    """A string of the SSH protocols, and what follows it. Source: RFC 4251, section 5."""
    (length,) = struct.unpack_from(">I", data)
    return data[4:][:length], data[4 + length :]


def _unsupported() -> errors.BadKey:
    return errors.BadKey(
        "Keys of this kind are not supported: RSA, ECDSA (nistp256, 384, 521) and Ed25519 are. "
        "Make a new one: ssh-keygen -t ed25519"
    )
