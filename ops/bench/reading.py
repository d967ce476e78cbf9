"""Reads files over HTTP and keeps nothing: as a module, and as a process with a few readers.

    python -m ops.bench.reading PORT COOKIE READERS URL

The process reads the file again and again with each of its readers, until it is ended.
"""

from __future__ import annotations

import base64
import http.client
import sys
import threading
from collections.abc import Callable
from urllib.parse import urlencode

PIECE_BYTES = 1 << 20
LIMIT_S = 120.0


def ask(
    port: int, url: str, cookie: str
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """The connection, and what the web process answers, of which the headers are read."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    connection.request("GET", url, headers={"Cookie": f"sessionid={cookie}"})
    return connection, connection.getresponse()


def drain(
    response: http.client.HTTPResponse, heard: Callable[[int], None] = lambda count: None
) -> int:
    """Read to the end; the number of bytes. One that broke off raises IncompleteRead."""
    buffer = bytearray(PIECE_BYTES)
    total, promised = 0, int(response.headers["Content-Length"])
    while count := response.readinto(buffer):
        total += count
        heard(count)
    if total != promised:
        raise http.client.IncompleteRead(b"", promised - total)
    return total


def download_url(job_id: int, path: bytes) -> str:
    """The address of a job's file in the admin."""
    query = urlencode({"path": base64.urlsafe_b64encode(path).decode()})
    return f"/admin/hpc_job_controller/hpcjob/{job_id}/files/download/?{query}"


def read_for_ever(port: int, url: str, cookie: str) -> None:
    """Read the file again and again."""
    while True:
        connection, response = ask(port, url, cookie)
        drain(response)
        connection.close()


def main(port: int, cookie: str, readers: int, url: str) -> None:
    """Let all readers read until this process is ended, or one of them fails."""
    failed = threading.Event()

    def run() -> None:
        try:
            read_for_ever(port, url, cookie)
        finally:
            failed.set()

    for _ in range(readers):
        threading.Thread(target=run, daemon=True).start()
    failed.wait()
    raise SystemExit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
