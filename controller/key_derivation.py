"""How much opening an encrypted private key computes, told by its head before anything is computed.

Rules:
- Whoever made the key chose these numbers: who believes them computes for as long as they say.
- What can't be read is refused, not tried: the library might read it.
"""

from __future__ import annotations

import math

PBKDF2_LIMIT = 2_000_000
"""Rounds, about a second. openssl's default is 2048, and what is recommended today 600,000.

Source: PKCS5_DEFAULT_ITER, https://github.com/openssl/openssl/blob/master/include/openssl/evp.h
"""
SCRYPT_LIMIT = 1 << 20
"""N * r * p, about a second and (as 128 bytes of N * r) 128 MiB. openssl's default is 2**17.

Source: https://docs.openssl.org/3.0/man1/openssl-pkcs8/
"""
PBES2 = bytes.fromhex("2a864886f70d01050d")
"""1.2.840.113549.1.5.13. Source: RFC 8018, appendix A.4."""
SCRYPT = bytes.fromhex("2b06010401da47040b")
"""1.3.6.1.4.1.11591.4.11. Source: RFC 7914, section 7."""
INTEGER, OID, SEQUENCE = 0x02, 0x06, 0x30

Element = tuple[int, bytes]
"""Tag and contents."""


def is_too_dear(info: bytes) -> bool:
    """Whether this EncryptedPrivateKeyInfo (DER) is over a limit; ValueError if that can't be read.

    Source: RFC 5958, section 3; RFC 8018, appendix A.
    """
    kind, parameters = _algorithm(_inside(_inside(_elements(info), 0), 0))
    if kind == PBES2:
        kind, parameters = _algorithm(_inside(parameters, 0))
    numbers = [int.from_bytes(value) for tag, value in parameters if tag == INTEGER]
    if len(numbers) < (3 if kind == SCRYPT else 1):
        raise ValueError("the numbers of the key derivation are missing")
    if kind == SCRYPT:
        return math.prod(numbers[:3]) > SCRYPT_LIMIT
    return numbers[0] > PBKDF2_LIMIT  # PBKDF2, or the one of PKCS#12


def _algorithm(identifier: list[Element]) -> tuple[bytes, list[Element]]:
    if not identifier or identifier[0][0] != OID:
        raise ValueError("an algorithm has no name")
    return identifier[0][1], _inside(identifier, 1)


def _inside(elements: list[Element], index: int) -> list[Element]:
    if len(elements) <= index or elements[index][0] != SEQUENCE:
        raise ValueError("a sequence is missing")
    return _elements(elements[index][1])


def _elements(data: bytes) -> list[Element]:
    """One after the other. Source: X.690, section 8.1, with definite lengths alone (10.1)."""
    found = []
    while data:
        start, size = 2, int.from_bytes(data[1:2])
        if size & 0x80:
            start = 2 + (size & 0x7F)
            size = int.from_bytes(data[2:start])
            if not 2 < start <= 6:
                raise ValueError("a length is of no known form")
        if len(data) < start + size:
            raise ValueError("an element is cut")
        found.append((data[0], data[start : start + size]))
        data = data[start + size :]
    return found
