"""How a command is put so that any login shell runs it, whatever its start-up files do; pure.

sshd gives the command to the account's login shell, which may be a bash, tcsh or fish, and whose
start-up files may print, read from stdin, wait, or put another shell in their own place. So:

- The command is one word that every shell leaves as it is: letters, digits and octal escapes in
  single quotes, which /bin/sh decodes. (In tcsh even a quoted `!` or line end means something.)
- It says READY before it runs what was asked for, and then drops its input up to the word GO.
  What was printed before READY is noise.
- Until READY, the same command is on its stdin as lines: a start-up file that reads takes one of
  those and not what is meant for the command, and a shell started in place of the login shell,
  which then reads its commands from stdin, finds it there.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-./=:,+@")
PREAMBLE_LINES = 3

WAIT_FOR_GO = """\
printf '\\n%s\\n' {ready}
while :; do IFS= read -r line || exit 1; [ "$line" = {go} ] && break; done
exec {command}"""


@dataclass(frozen=True)
class Command:
    """A command as it is sent, and the words by which its start is known."""

    text: str
    ready: bytes
    go: bytes

    @property
    def preamble(self) -> bytes:
        """What is put on stdin at once."""
        return (self.text.encode() + b"\n") * PREAMBLE_LINES


def command(argv: Sequence[str], nonce: str = "") -> Command:
    """`argv` for a login shell; the caller gives it `preamble`, waits for `ready`, gives `go`."""
    nonce = nonce or secrets.token_hex(8)
    ready, go = f"HPC-READY-{nonce}", f"HPC-GO-{nonce}"
    code = WAIT_FOR_GO.format(ready=ready, go=go, command=shlex.join(argv))
    return Command(in_any_shell(code), f"\n{ready}\n".encode(), f"{go}\n".encode())


def in_any_shell(code: str) -> str:
    """`code` for /bin/sh as a line for any shell, in whose place /bin/sh then is."""
    data = code.encode("utf-8", "surrogateescape")
    if b"\0" in data:
        raise ValueError("A command can't hold a NUL.")
    escaped = "".join(chr(byte) if byte in PLAIN else f"\\0{byte:03o}" for byte in data)
    return f'exec /bin/sh -c \'eval "$(printf %b "{escaped}")"\''
