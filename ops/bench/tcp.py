"""The physical limit of a download here: a process that sends a file over TCP by sendfile.

    python -m ops.bench.tcp PATH

It says its port, then sends the whole file to whoever connects, one after the other.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ops import errors
from ops.stack import CHECKOUT

BUFFER_BYTES = 1 << 20
LIMIT_S = 60.0


def serve(path: Path) -> None:
    """Send the file until nobody wants this process any more."""
    with socket.create_server(("127.0.0.1", 0)) as listener, path.open("rb") as file:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                _send_all(connection, file.fileno())


def _send_all(connection: socket.socket, file: int) -> None:
    offset, size = 0, os.fstat(file).st_size
    while offset < size:
        offset += os.sendfile(connection.fileno(), file, offset, size - offset)


@contextlib.contextmanager
def serving(path: Path) -> Iterator[Callable[[], int]]:
    """Inside, a call reads the whole file over TCP and returns its size in bytes."""
    argv = [sys.executable, "-m", "ops.bench.tcp", str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline()
            if not port:
                raise errors.OpsError("The sender of the TCP yardstick has ended.")
            yield lambda: _read_all(int(port))
        finally:
            process.kill()


def _read_all(port: int) -> int:
    buffer, total = bytearray(BUFFER_BYTES), 0
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as connection:
        while count := connection.recv_into(buffer):
            total += count
    return total


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
