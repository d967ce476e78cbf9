"""How this process logs in to a cluster itself: what the workers' package put here, if anything.

The controller never imports workers: they hand in a function, in workers and management commands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import errors

Opener = Callable[[Any], tuple[Any, Any]]
"""Takes an HpcCluster; returns a connected paramiko.SSHClient and a session, or raises HpcError."""

_opener: Opener | None = None


def set_opener(opener: Opener) -> None:
    """Let `get_ssh_connection` work in this process."""
    global _opener  # noqa: PLW0603  # a matter of the process
    _opener = opener


def open_ssh(cluster: Any) -> tuple[Any, Any]:
    """A connected SSH client and a session. Raises Misconfigured where nobody gave an opener."""
    if _opener is None:
        raise errors.Misconfigured(
            f"This process can't log in to cluster {cluster}: SSH is for workers and management"
            " commands whose project installs the workers' package (workers.install.install, or"
            " offer_ssh in manage.py). Elsewhere ask a worker: hpc cluster test, hpc cluster"
            " connect."
        )
    return _opener(cluster)
