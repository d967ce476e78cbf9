"""The environment of a stack: generated secrets, kept in a file that only its owner can read."""

from __future__ import annotations

import base64
import os
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path

from ops import errors

# What the stack decides by itself, whatever the shell that starts it has set.
OWN_PREFIXES = ("HPC_", "DJANGO_", "CELERY_", "FLOWER_")
FLOWER_USER = "flower"


def generate(instance_id: str) -> dict[str, str]:
    """New secrets for a new instance."""
    return {
        # A Fernet key: 32 random bytes, base64url.
        # Source: https://cryptography.io/en/latest/fernet/
        "HPC_SECRET_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "HPC_INSTANCE_ID": instance_id,
        "DJANGO_SECRET_KEY": secrets.token_urlsafe(50),
        "FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{secrets.token_urlsafe(18)}",
    }


def write(path: Path, values: Mapping[str, str]) -> None:
    """Write a file that a shell can source; it replaces the one before in a single step."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.writelines(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def read(path: Path) -> dict[str, str]:
    """Read what `write` wrote."""
    values = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            words = ["?", "?"]
        if not words:
            continue
        name, equals, value = words[0].partition("=")
        if len(words) > 1 or not equals:
            raise errors.OpsError(f"{path}, line {number}: NAME=value is expected there.")
        values[name] = value
    return values


def of_children(inherited: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """What the processes of a stack get: the shell's environment, less what could mislead them."""
    kept = {k: v for k, v in inherited.items() if not k.startswith(OWN_PREFIXES)}
    return {**kept, "PYTHONUNBUFFERED": "1", **own}
