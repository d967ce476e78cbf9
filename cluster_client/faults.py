"""Fault points: numbered places where a test can have this process killed, once.

`HPC_FAULT_POINT` holds `NAME:/path/of/marker`, several separated by ",". Reaching NAME makes the
marker (O_EXCL, so that only the first to arrive dies) and kills the process with SIGKILL.
The daemon refuses to start with it unless HPC_ALLOW_FAULT_POINTS=1 (configuration).
"""

from __future__ import annotations

import os
import signal

from cluster_client import errors

_markers: dict[str, str] = {}


def configure(value: str) -> None:
    """Arm the fault points named in `value`; "" disarms all."""
    _markers.clear()
    for item in filter(None, (part.strip() for part in value.split(","))):
        name, separator, marker = item.partition(":")
        if not separator or not name or not os.path.isabs(marker):
            raise errors.SettingsError(
                f"HPC_FAULT_POINT: {item!r} is not NAME:/absolute/path/of/marker."
            )
        _markers[name] = marker


def reach(name: str) -> None:
    """Die here if `name` is armed and its marker can be made."""
    marker = _markers.get(name)
    if marker is None:
        return
    try:
        os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
