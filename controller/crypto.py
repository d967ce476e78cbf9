"""Secrets at rest: sealed with the newest of HPC_SECRET_KEYS, opened with any of them.

A sealed value never shows what it holds: only `reveal` does, where a login needs it.
"""

from __future__ import annotations

import re

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from . import conf, errors

STARS = "********"
TOKEN = re.compile(r"gAAAA[A-Za-z0-9_-]{90,}={0,2}")
"""How every Fernet token of our time looks: version 0x80, then the seconds since 1970 in 8 bytes.

Source: https://github.com/fernet/spec/blob/master/Spec.md
"""


UNREADABLE = (InvalidToken, ValueError)
"""What a token that no key opens raises; ValueError if it holds what no token holds."""


class Sealed:
    """A secret as it is stored; empty if there is none.

    Two of the same secret differ. `is_stored`: it was read from the column it stands in.
    """

    __slots__ = ("is_stored", "token")

    def __init__(self, token: str, is_stored: bool = False) -> None:
        self.token = token
        self.is_stored = is_stored

    def reveal(self) -> str:
        """The secret. Raises CannotDecrypt."""
        return reveal(self.token)

    def __bool__(self) -> bool:
        return bool(self.token)

    def __str__(self) -> str:
        return STARS if self.token else ""

    def __repr__(self) -> str:
        return f"<Sealed {self}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sealed) and other.token == self.token

    def __hash__(self) -> int:
        return hash(self.token)


def seal(secret: str) -> Sealed:
    """The secret, encrypted with the newest key. Raises Invalid."""
    if TOKEN.fullmatch(secret):
        raise errors.Invalid("This is no secret but a sealed one: to seal it again would lose it.")
    try:
        return Sealed(_keys().encrypt(secret.encode()).decode() if secret else "")
    except UnicodeEncodeError:
        # `from None`: that error carries the secret.
        raise errors.Invalid(
            "The secret holds characters that are no text: enter it anew."
        ) from None


def reveal(token: str) -> str:
    """What is sealed in `token`. Raises CannotDecrypt."""
    if not token:
        return ""
    try:
        return _keys().decrypt(token).decode()
    except UNREADABLE:
        raise _cannot_decrypt() from None


def reseal(token: str) -> Sealed:
    """The same secret, sealed with the newest key. Raises CannotDecrypt."""
    try:
        return Sealed(_keys().rotate(token).decode())
    except UNREADABLE:
        raise _cannot_decrypt() from None


def opener(token: str) -> int | None:
    """Which of HPC_SECRET_KEYS opens it, 0 being the newest; None if none does."""
    for number, key in enumerate(conf.get().secret_keys):
        try:
            Fernet(key).decrypt(token)
        except UNREADABLE:
            continue
        return number
    return None


def _cannot_decrypt() -> errors.CannotDecrypt:
    return errors.CannotDecrypt(
        "A stored secret can't be decrypted: no key of HPC_SECRET_KEYS opens it. Put the key back"
        " that it was stored with, or enter the secret again."
    )


def _keys() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in conf.get().secret_keys])
