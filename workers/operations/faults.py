"""Fault points: numbered places where a test can have this process killed, once.

`HPC_FAULT_POINT` holds `NAME:/path/of/marker`, several separated by ",". Reaching NAME makes the
marker (O_EXCL, so that only the first to arrive dies) and kills the process with SIGKILL;
`NAME/stop` freezes it with SIGSTOP instead. The settings refuse all of it unless
HPC_ALLOW_FAULT_POINTS is on.

    worker.submit.1  before the claim            worker.events.1  received, not committed
    worker.submit.2  claimed, not sent           worker.events.2  committed, not acknowledged
    worker.submit.3  sent, not answered
    worker.submit.4  answered, not recorded
    worker.submit.5  recorded
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from controller import errors

_markers: dict[str, str] = {}
_one_death = threading.Lock()


def configure(value: str) -> None:
    """Arm the fault points that `value` names; "" disarms all."""
    _markers.clear()
    for item in filter(None, (part.strip() for part in value.split(","))):
        name, _, marker = item.partition(":")
        if not name or not Path(marker).is_absolute():
            raise errors.Misconfigured(
                f"HPC_FAULT_POINT: {item!r} is not NAME:/absolute/path/of/marker."
            )
        _markers[name] = marker


def reach(name: str) -> None:
    """Die or freeze here if `name` is armed and its marker can be made."""
    for armed, number in ((name, signal.SIGKILL), (f"{name}/stop", signal.SIGSTOP)):
        marker = _markers.get(armed)
        if marker is None:
            continue
        with _one_death:  # so that no other thread makes a marker while this one dies
            if _is_first(marker):
                os.kill(os.getpid(), number)


def _is_first(marker: str) -> bool:
    try:
        os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    return True
