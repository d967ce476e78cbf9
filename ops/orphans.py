"""Processes whose parents have ended: they come to us, are seen to end, and none stays unnoticed.

Without this they go to init, which in a container may collect nobody.
Source: https://man7.org/linux/man-pages/man2/pr_set_child_subreaper.2const.html
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

from ops import processes

PR_SET_CHILD_SUBREAPER = 36


def adopt() -> None:
    """From now on the orphans among our descendants are our children.

    Where the kernel does not tell who they are, nobody could collect them: then they go to init.
    """
    if _list_of_children().exists():
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def adopted() -> list[int]:
    """Our children that we have not started ourselves, ended or not."""
    try:
        children = {int(word) for word in _list_of_children().read_text().split()}
    except FileNotFoundError:
        return []
    return sorted(children - processes.running)


def collect() -> None:
    """Collect those that have ended."""
    for pid in adopted():
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _list_of_children() -> Path:
    # Those of the main thread: it starts ours, and the kernel hands orphans to it.
    return Path(f"/proc/self/task/{os.getpid()}/children")
