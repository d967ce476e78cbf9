"""The keys by which a cluster's hosts are known, and how those offered now are fetched."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

ALGORITHMS: dict[str, tuple[str, ...]] = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}
"""What is negotiated for each type of key; never SHA-1.
Source: https://www.rfc-editor.org/rfc/rfc8332"""


@dataclass(frozen=True)
class HostKey:
    """One key that a person has confirmed, or may confirm.

    `fingerprint` is as ssh-keygen prints it, `SHA256:...`; `address` is where the key was seen,
    empty if that is not known.
    """

    key_type: str
    fingerprint: str
    address: str = ""

    def __str__(self) -> str:
        return f"{self.key_type} {self.fingerprint}"


def fingerprint(blob: bytes) -> str:
    """The fingerprint of a public key's blob."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode()
    return "SHA256:" + digest.rstrip("=")


def from_line(line: str, address: str = "") -> HostKey:
    """The key of a line like `ssh-ed25519 AAAA...`, as in a .pub file. ValueError if it is none."""
    words = line.split()
    if len(words) < 2 or words[0] not in ALGORITHMS:
        raise ValueError("This is no line with a host key of a known type.")
    return HostKey(words[0], fingerprint(base64.b64decode(words[1], validate=True)), address)


class Pins:
    """The confirmed keys of one cluster: any of them is good at any of its addresses.

    Several login nodes behind one name change their addresses, but not their keys.
    """

    def __init__(self, keys: Iterable[HostKey]) -> None:
        self._keys = frozenset(keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def algorithms(self, address: str) -> tuple[str, ...]:
        """What to negotiate at `address`: the types confirmed there, else all confirmed types.

        A node may have keys of types that were confirmed for another node only: negotiating those
        would look like a change.
        """
        here = {key.key_type for key in self._keys if key.address == address}
        types = here or {key.key_type for key in self._keys}
        return algorithms_of(types)

    def accept(self, key_type: str, blob: bytes) -> bool:
        """Whether this is one of the confirmed keys."""
        shown = fingerprint(blob)
        return any(key.key_type == key_type and key.fingerprint == shown for key in self._keys)

    def __str__(self) -> str:
        return ", ".join(sorted({str(key) for key in self._keys}))


def algorithms_of(types: Collection[str]) -> tuple[str, ...]:
    """The signature algorithms of key types, best first."""
    return tuple(
        name for key_type, names in ALGORITHMS.items() if key_type in types for name in names
    )
