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
    Source: proc_pid_stat(5), fields 3 and 22; field 2 is in parentheses and may hold anything.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
