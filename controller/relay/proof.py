"""Who proves to be a worker of this installation: an HMAC of the token, which no task carries."""

from __future__ import annotations

import hashlib
import hmac
from uuid import UUID

from .. import conf

PURPOSE = b"hpc relay: a files worker"
"""Sets the key apart from all else that is made of HPC_SECRET_KEYS."""


def proof(token: UUID) -> str:
    """What a worker shows at the relay of `token`."""
    return _proof(conf.get().secret_keys[0], token)


def is_proof(token: UUID, text: object) -> bool:
    """Whether `text` was made by one that has one of HPC_SECRET_KEYS."""
    if not isinstance(text, str) or not text.isascii():
        return False
    answers = [hmac.compare_digest(_proof(k, token), text) for k in conf.get().secret_keys]
    return any(answers)


def _proof(secret: str, token: UUID) -> str:
    key = hmac.digest(secret.encode(), PURPOSE, hashlib.sha256)
    return hmac.new(key, token.bytes, hashlib.sha256).hexdigest()
