"""What the kernel tells of processes: memory, processor time, children, words on the command line.

Source of each file's form: https://man7.org/linux/man-pages/man5/proc.5.html
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    """Memory that is resident now."""
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(f"Process {pid} has ended.")


def cpu_s(pid: int) -> float:
    """Processor time that the process with all its threads has used."""
    text = (PROC / str(pid) / "stat").read_text(errors="replace")
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def find(*words: str, uid: int) -> Sequence[int]:
    """The processes of `uid` whose command line holds each of `words` in this order."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit() and _has(entry, words, uid):
            found.append(int(entry.name))
    return sorted(found)


def _has(entry: Path, words: Sequence[str], uid: int) -> bool:
    try:
        if entry.stat().st_uid != uid:
            return False
        text = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # it has ended meanwhile
        return False
    at = 0
    for word in words:
        at = text.find(word, at)
        if at < 0:
            return False
        at += len(word)
    return True
