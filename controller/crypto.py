"""Secrets at rest: sealed with the newest of HPC_SECRET_KEYS, opened with any of them.

A sealed value never shows what it holds: only `reveal` does, where a login needs it.
"""

from __future__ import annotations

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from . import conf, errors

STARS = "********"


class Sealed:
    """A secret as it is stored; empty if there is none."""

    __slots__ = ("token",)

    def __init__(self, token: str) -> None:
        self.token = token

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
    """The secret, encrypted with the newest key."""
    return Sealed(_keys().encrypt(secret.encode()).decode() if secret else "")


def reveal(token: str) -> str:
    """What is sealed in `token`. Raises CannotDecrypt."""
    if not token:
        return ""
    try:
        return _keys().decrypt(token).decode()
    except InvalidToken:
        raise errors.CannotDecrypt(
            "A stored secret can't be decrypted: no key of HPC_SECRET_KEYS opens it. Put the key "
            "back that it was stored with, or enter the secret again."
        ) from None


def _keys() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in conf.get().secret_keys])
