"""Becomes another program that ends when its parent does.

    python -I -S child.py PARENT_PID SIGNAL USER -- PROGRAM ARGUMENTS...

The kernel sends SIGNAL when the parent's thread that started this process ends, however it ends.
A program of its own, because code between fork and exec is unsafe once the parent has threads.
Source: https://man7.org/linux/man-pages/man2/pr_set_pdeathsig.2const.html
"""

import ctypes
import os
import pwd
import sys

PR_SET_PDEATHSIG = 1


def change_user(name: str) -> None:
    """Give up the present user for another, groups included."""
    entry = pwd.getpwnam(name)
    os.initgroups(name, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.environ.update(HOME=entry.pw_dir, USER=name, LOGNAME=name)


def main(parent_pid: int, death_signal: int, user: str, argv: list[str]) -> None:
    """Tie this process to its parent and become `argv`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if user:
        # Before prctl: a change of user clears what it sets.
        change_user(user)
    if libc.prctl(PR_SET_PDEATHSIG, death_signal) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        # The parent ended before the tie was made.
        raise SystemExit(1)
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        raise SystemExit(f"{argv[0]} could not be started: {error.strerror}.") from None


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[5:])
