"""Looks for secrets where they must not be: each place is a name and the bytes that are there.

What is looked for are words: a secret must hold a piece of letters and digits by which it is known,
because quotes and spaces are written in a different way by each of JSON, HTML, URLs and `repr`.
"""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.db import connection

from ops import services

PROC = Path("/proc")
LEAST = 16
"""Shorter words could be found by chance."""

Place = tuple[str, bytes]
Find = tuple[str, str]
"""Where, and which of the secrets."""


class Words:
    """Secrets by name, each known by one word, in every form in which it could be written."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self._names: dict[bytes, str] = {}
        for name, word in words.items():
            assert len(word) >= LEAST, f"{name} is too short to be found for sure"
            self._names.update(dict.fromkeys(forms(word), name))
        self._pattern = re.compile(b"|".join(map(re.escape, self._names)))

    def within(self, data: bytes) -> set[str]:
        """The names of the secrets that are in it."""
        return {self._names[found] for found in self._pattern.findall(data)}

    def find(self, places: Iterable[Place]) -> set[Find]:
        """Where which of them are."""
        return {(place, name) for place, data in places for name in self.within(data)}


def forms(word: str) -> set[bytes]:
    """The word as it is, in base64 wherever it begins in what is encoded, and in hexadecimal."""
    data = word.encode()
    encoded = {data, data.hex().encode(), data.hex().upper().encode()}
    for before in range(3):
        # Three bytes are four characters: those that hold bits of what stands around are left out.
        first, last = -(-before * 4 // 3), (before + len(data)) * 4 // 3
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded.add(encode(b"\0" * before + data)[first:last])
    return encoded


# Places -------------------------------------------------------------------------------------------


def texts(name: str, paths: Iterable[Path]) -> Iterator[Place]:
    """Files as they are."""
    return ((name, path.read_bytes()) for path in paths)


def rows() -> Iterator[Place]:
    """All that the tables hold."""
    for table in connection.introspection.table_names():
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            for row in cursor.fetchall():
                yield "rows", b"\n".join(as_bytes(value) for value in row)


def as_bytes(value: Any) -> bytes:
    """A value of a database or of Redis."""
    return bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()


def redis_keys(client: Any) -> Iterator[Place]:
    """All keys, and what is in them; `client` is a redis.Redis that gives bytes."""
    readers = {
        b"string": client.get,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"hash": client.hgetall,
        b"stream": client.xrange,
    }
    for key in client.scan_iter():
        yield "redis keys", key
        kind = client.type(key)
        if kind != b"none":  # it has run out meanwhile
            yield "redis keys", repr(readers[kind](key)).encode()


class Commands:
    """Every command that Redis gets from now on, as `MONITOR` shows them."""

    def __init__(self, redis: services.Redis) -> None:
        self._redis = redis
        self._heard = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._listen, name="monitor", daemon=True)

    def __enter__(self) -> Commands:
        self._socket.connect(str(self._redis.socket_path))
        self._socket.sendall(b"AUTH %s\r\nMONITOR\r\n" % self._redis.password.encode())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._socket.close()

    def places(self) -> Iterator[Place]:
        """What was heard until now."""
        yield "redis commands", bytes(self._heard)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while heard := self._socket.recv(1 << 16):
                self._heard += heard


@dataclass(frozen=True)
class Shown:
    """A secret that a process shows to those who may look at it."""

    pid: int
    place: str
    """argv or environ"""
    name: str
    argv: str = field(compare=False)
    uid: int = field(compare=False)
    mode: int = field(compare=False)
    """Of /proc/PID/environ."""


class Processes:
    """Looks at all processes of this machine again and again, whosever they are."""

    def __init__(self, words: Words, pause_s: float = 0.04) -> None:
        self._words = words
        self._pause_s = pause_s
        self._shown: set[Shown] = set()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="processes", daemon=True)

    def __enter__(self) -> Processes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(10)

    def shown(self, own: Collection[int] = (), allowed: Collection[str] = ()) -> set[Shown]:
        """What was seen; without the secrets that our `own` processes may have in their environ."""
        return {
            one
            for one in self._shown.copy()
            if not (one.place == "environ" and one.pid in own and one.name in allowed)
        }

    def _watch(self) -> None:
        while not self._is_over.wait(self._pause_s):
            for entry in PROC.iterdir():
                if entry.name.isdigit():
                    # It may end while it is looked at, or be somebody else's.
                    with contextlib.suppress(OSError):
                        self._look(entry)

    def _look(self, entry: Path) -> None:
        argv = (entry / "cmdline").read_bytes()
        found = [("argv", name) for name in self._words.within(argv)]
        found += [
            ("environ", name) for name in self._words.within((entry / "environ").read_bytes())
        ]
        for place, name in found:
            status = (entry / "environ").stat()
            words = argv.replace(b"\0", b" ").decode(errors="replace")
            shown = Shown(
                int(entry.name), place, name, words, status.st_uid, status.st_mode & 0o777
            )
            self._shown.add(shown)
