"""The soft limits of a login (ulimit), which what is submitted takes along; see setrlimit(2)."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Mapping

Limits = Mapping[int, int]
"""Soft limits by the numbers of `resource`."""

_NAMES = {
    "Max cpu time": resource.RLIMIT_CPU,
    "Max file size": resource.RLIMIT_FSIZE,
    "Max data size": resource.RLIMIT_DATA,
    "Max stack size": resource.RLIMIT_STACK,
    "Max core file size": resource.RLIMIT_CORE,
    "Max resident set": resource.RLIMIT_RSS,
    "Max processes": resource.RLIMIT_NPROC,
    "Max open files": resource.RLIMIT_NOFILE,
    "Max locked memory": resource.RLIMIT_MEMLOCK,
    "Max address space": resource.RLIMIT_AS,
}
"""Those that sbatch propagates. Source: https://slurm.schedmd.com/sbatch.html, --propagate"""


def parse(text: str) -> dict[int, int]:
    """What /proc/PID/limits tells; lines that can't be read are left out."""
    found = {}
    for line in text.splitlines():
        # The columns have fixed widths. Source: fs/proc/base.c of Linux, proc_pid_limits
        number, words = _NAMES.get(line[:25].strip()), line[25:].split()
        if number is None or not words:
            continue
        if words[0] == "unlimited":
            found[number] = resource.RLIM_INFINITY
        elif words[0].isdigit():
            found[number] = int(words[0])
    return found


def take_on(limits: Limits) -> None:
    """Give this process these soft limits, as far as its hard ones allow."""
    for number, soft in limits.items():
        hard = resource.getrlimit(number)[1]
        if hard != resource.RLIM_INFINITY:
            soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)
        with contextlib.suppress(OSError, ValueError):  # whoever submits by hand is told no more
            resource.setrlimit(number, (soft, hard))
