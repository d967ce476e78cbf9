"""This host and its processes: names that outlive a reused process id."""

from __future__ import annotations

import os
from typing import Optional

BOOT_ID = "/proc/sys/kernel/random/boot_id"


def host_name() -> str:
    """The name of this host, as the kernel knows it."""
    return os.uname().nodename


def boot_id() -> str:
    """What the kernel drew at boot; "" where it does not say."""
    try:
        with open(BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def start_time(pid: int) -> Optional[int]:
    """When process `pid` started, in clock ticks since boot; None if there is no such process.

    A zombie counts as gone: it runs no code any more.
    """
    fields = _fields(pid)
    return None if not fields or fields[0] in (b"Z", b"X") else int(fields[19])


def is_frozen(pid: int) -> bool:
    """Whether process `pid` is stopped (SIGSTOP, a debugger) and will do nothing until woken."""
    return _fields(pid)[:1] in ([b"T"], [b"t"])


def _fields(pid: int) -> list[bytes]:
    # From field 3, the state, on; field 2 is in parentheses and may hold anything.
    # Source: proc_pid_stat(5).
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return []
    return text[text.rindex(b")") + 2 :].split()
