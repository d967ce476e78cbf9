"""What is known of a cluster before it is reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..links import bridge, ssh


@dataclass(frozen=True)
class Plan:
    """How to reach one cluster, read from its row.

    `login` is None on the worker's own machine; `address` is where the control connection last
    went. A start is proved to last unless its host is `proven_host`.
    """

    cluster_id: int
    key: str
    carrier: str
    installation: bridge.Installation
    is_attached: bool = False
    document: dict[str, Any] = field(default_factory=dict)
    login: ssh.Login | None = None
    login_changed_at: datetime | None = None
    address: str = ""
    proven_host: str = ""
    elsewhere_tries: int = 0
    may_move: bool = True
    """Whether the daemon was not moved to another host within MOVE_PAUSE_S."""
