"""One end of a relay in a process of its own: `python -m tests.integration.relay.peer DO TOKEN`."""

import os
import socket
import sys
from uuid import UUID

from controller import conf, errors
from controller.relay import listening, unix_socket
from controller.relay.frames import Kind

NOBODY = 65534


def hold(token: UUID) -> None:
    """Meet the listener, and do nothing until the end of stdin."""
    connection = listening.connect(token)
    say("connected")
    sys.stdin.read()
    connection.close()


def pour(token: UUID) -> None:
    """Send without end."""
    connection = listening.connect(token)
    say("connected")
    try:
        while True:
            connection.send(Kind.DATA, bytes(1 << 20))
    except errors.TransferBroken:
        say("gone")


def knock(token: UUID) -> None:
    """As another user, who somehow may open the socket: say whether one is hung up on."""
    os.seteuid(NOBODY)
    stranger = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stranger.connect(str(unix_socket.path_of(token)))
        say("connected")
        say("dropped" if not stranger.recv(1) else "heard")
    except ConnectionResetError:
        say("dropped")
    except PermissionError:
        say("refused")


def listen(token: UUID) -> None:
    """Listen as another user, until the end of stdin."""
    os.seteuid(NOBODY)
    with listening.listen(token):
        say("listening")
        sys.stdin.read()


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    conf.get()  # another user may not be able to import what that needs
    {"hold": hold, "pour": pour, "knock": knock, "listen": listen}[sys.argv[1]](UUID(sys.argv[2]))
