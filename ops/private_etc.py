"""Becomes another program for which some files in /etc are ours, and /run is empty.

    python -I -S private_etc.py DIRECTORY SMALL NOEXEC HOST -- PROGRAM ARGUMENTS...

Each file below DIRECTORY lies over the one of the same name below /etc, SMALL is a very small disk
and NOEXEC one on which nothing can be executed, in a mount namespace that only this program and its
children see: accounts and PAM services for one test, nothing of which stays when the last of them
ends, however it ends. HOST, if it is not empty, makes them a host of that name with a /tmp of its
own, where the directory above DIRECTORY's stays what it is. An ordinary user gets all this by a
user namespace.
Sources: https://man7.org/linux/man-pages/man7/mount_namespaces.7.html and uts_namespaces.7.html
"""

import ctypes
import os
import sys
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWUSER = 0x10000000
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
PR_SET_PDEATHSIG = 1
PR_GET_PDEATHSIG = 2
PRIVILEGE_SEPARATION_DIRECTORY = Path("/run/sshd")

MAY_NOT = (
    "A mount namespace is needed (in a container the capability SYS_ADMIN, for an ordinary user "
    "the right to make user namespaces); unshare"
)

libc = ctypes.CDLL(None, use_errno=True)


def main(directory: Path, small: Path, noexec: Path, host: bytes, argv: list[str]) -> None:
    """Leave the system's view of /etc and become `argv`."""
    signal = death_signal()
    leave(CLONE_NEWNS | (CLONE_NEWUTS if host else 0))
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    for source in directory.rglob("*"):
        if source.is_file():
            mount(str(source), str(Path("/etc") / source.relative_to(directory)), "", MS_BIND)
    mount("tmpfs", str(small), "tmpfs", 0, b"size=256k,mode=1777")
    mount("tmpfs", str(noexec), "tmpfs", MS_NOEXEC, b"size=16m,mode=1777")
    mount("tmpfs", "/run", "tmpfs", 0)
    PRIVILEGE_SEPARATION_DIRECTORY.mkdir(0o755)
    if host:
        check(libc.sethostname(host, len(host)), "sethostname")
        own_tmp(directory.parent.parent)
    # A change of credentials clears it.
    libc.prctl(PR_SET_PDEATHSIG, signal)
    os.execv(argv[0], argv)


def leave(kinds: int) -> None:
    """Enter namespaces of our own, in which we keep our numbers."""
    uid, gid = os.geteuid(), os.getegid()
    check(libc.unshare(kinds if uid == 0 else kinds | CLONE_NEWUSER), MAY_NOT)
    if uid:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            Path("/proc/self", name).write_text(text)


def own_tmp(shared: Path) -> None:
    """Another /tmp, in which `shared` stays what it is."""
    aside = Path("/run/shared")
    aside.mkdir(0o755)
    mount(str(shared), str(aside), "", MS_BIND | MS_REC)
    mount("tmpfs", "/tmp", "tmpfs", 0, b"mode=1777")
    shared.mkdir(0o755, parents=True)
    mount(str(aside), str(shared), "", MS_BIND | MS_REC)


def mount(source: str, target: str, kind: str, flags: int, options: bytes | None = None) -> None:
    """mount(2)."""
    words = (os.fsencode(source), os.fsencode(target), kind.encode() or None)
    check(libc.mount(*words, flags, options), f"mount {target}")


def death_signal() -> int:
    """What the kernel sends us when our parent ends."""
    number = ctypes.c_int()
    check(libc.prctl(PR_GET_PDEATHSIG, ctypes.byref(number)), "prctl")
    return number.value


def check(status: int, what: str) -> None:
    """End with a sentence if a call failed."""
    if status != 0:
        raise SystemExit(f"{what} failed: {os.strerror(ctypes.get_errno())}.")


if __name__ == "__main__":
    etc, small, noexec = (Path(word) for word in sys.argv[1:4])
    main(etc, small, noexec, os.fsencode(sys.argv[4]), sys.argv[6:])
