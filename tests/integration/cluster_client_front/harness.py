"""A cluster client in a directory of its own, and links to its daemon as a worker makes them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import websocket

from cluster_client import registry, socket_directory
from cluster_client.protocol import messages
from cluster_client.protocol.session import Notice, Reply, Session

SOURCE = Path(__file__).parents[3] / "cluster_client"
NOT_SHIPPED = ("__pycache__", "venv", "log", "jobs", "state")
MARKER = b"HPC-BRIDGE 1 "
LIMIT_S = 30.0
STEP_S = 0.02
QUICK = {
    "HPC_POLL_INTERVAL_S": "0.5",
    "HPC_POLL_INTERVAL_IDLE_S": "0.5",
    "HPC_HINT_INTERVAL_S": "0.1",
}


def wait_until(is_met: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    """The first true value of `is_met`; AssertionError after the limit."""
    deadline = time.monotonic() + limit_s
    while True:
        value = is_met()
        if value:
            return value
        assert time.monotonic() < deadline, f"{is_met} was not met within {limit_s} s"
        time.sleep(STEP_S)


def new_tag() -> str:
    """A tag as the server makes them."""
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    return "j" + "".join(secrets.choice(alphabet) for _ in range(14))


def remove_socket_directory(path: Path) -> None:
    """Remove a daemon's socket and its directory, and nothing that is not exactly that.

    A registry may be made up by a test: what it names is not trusted to be removed as a tree.
    """
    if re.fullmatch(r"/tmp/hpc-[0-9]+-[0-9a-f]{12}", str(path)) and not path.is_symlink():
        (path / socket_directory.SOCKET).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.rmdir()


class Installation:
    """A client at `path`; everything it started is gone after `close`."""

    def __init__(self, python: Path, path: Path, key: str = "portal.1") -> None:
        self.python = python
        self.path = path
        self.key = key
        self.environment = {
            "HOME": os.environ.get("HOME", "/"),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "USER": os.environ.get("USER", "root"),
            "LOGNAME": os.environ.get("USER", "root"),
            "SHELL": "/bin/bash",
            "HPC_ALLOW_ROOT": "1",
            "HPC_DAEMON_PID_FILE": str(path / "daemon.pid"),
        }
        self.settings: dict[str, Any] = dict(QUICK)
        self._seen: list[registry.Entry] = []
        self._bridges: list[Bridge] = []

    @classmethod
    def copy(cls, python: Path, path: Path, key: str = "portal.1") -> Installation:
        """A client copied to `path` from this tree."""
        shutil.copytree(SOURCE, path, ignore=shutil.ignore_patterns(*NOT_SHIPPED))
        return cls(python, path, key)

    def __enter__(self) -> Installation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def state_directory(self) -> Path:
        return self.path / "state" / self.key

    @property
    def jobs(self) -> Path:
        return self.path / "jobs"

    @property
    def log(self) -> str:
        path = self.path / "log" / f"{self.key}.log"
        return path.read_text() if path.exists() else ""

    @property
    def instance_id(self) -> str:
        return self.key.rpartition(".")[0]

    @property
    def cluster_id(self) -> int:
        return int(self.key.rpartition(".")[2])

    def entry(self) -> registry.Entry | None:
        """Who serves, as the registry says."""
        entry = registry.read(str(self.state_directory))
        if entry is not None and entry.is_here() and entry not in self._seen:
            self._seen.append(entry)
        return entry

    def command(self, *arguments: str) -> list[str]:
        """How the client is run."""
        return [str(self.python), str(self.path / "client.py"), *arguments]

    def run(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            self.command(*arguments),
            input=text,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=LIMIT_S * 4,
            check=False,
        )

    def document(self, generation: int = 1, **changes: Any) -> dict[str, Any]:
        """The start document that a server sends."""
        return {
            "instance_id": self.instance_id,
            "cluster_id": self.cluster_id,
            "generation": generation,
            "settings": self.settings,
            "setup_commands": "",
            "umask": "0077",
            **changes,
        }

    def start(self, generation: int = 1, **changes: Any) -> dict[str, Any]:
        """Start the daemon; the client's answer."""
        self.entry()
        done = self.run(
            "start", self.key, text=json.dumps(self.document(generation, **changes)) + "\n"
        )
        self.entry()
        assert done.stdout.startswith(MARKER.decode()), (done.stdout, done.stderr)
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        assert done.returncode == (0 if answer["status"] in ("started", "already") else 1), done
        return answer

    def bridge(self, *arguments: str, first: bytes = b"") -> Bridge:
        """Run a command that speaks on stdio; it is ended by `close`."""
        one = Bridge(self.command(*arguments), self.environment, first)
        self._bridges.append(one)
        return one

    def dial(self) -> dict[str, Any]:
        """What `dial` says, without going on."""
        with self.bridge("dial", self.key) as bridge:
            return bridge.marker

    def connect(self, epoch: int = 1, **greeting: Any) -> Link:
        """A greeted control link."""
        link = self.link()
        welcome = link.greet(epoch=epoch, **greeting)
        assert isinstance(welcome, messages.Welcome), welcome
        return link

    def link(self) -> Link:
        """A control link that has not greeted yet."""
        bridge = self.bridge("dial", self.key)
        assert bridge.marker["status"] == "connected", bridge.marker
        return Link(bridge, self)

    def files(self) -> Link:
        """A greeted data link."""
        bridge = self.bridge("files", self.key)
        assert bridge.marker["status"] == "connected", bridge.marker
        link = Link(bridge, self, "/files", messages.DATA_LIMIT_BYTES)
        welcome = link.greet(purpose=messages.FILES)
        assert isinstance(welcome, messages.Welcome), welcome
        return link

    def kill(self) -> registry.Entry:
        """Kill the daemon as the out-of-memory killer would; the entry that it leaves."""
        entry = self.entry()
        assert entry is not None and entry.is_alive(), entry
        os.kill(entry.pid, signal.SIGKILL)
        wait_until(lambda: not entry.is_alive())
        return entry

    def stop(self) -> None:
        """End the daemon by the client's own command."""
        done = self.run("stop", self.key)
        assert done.returncode == 0, done

    def close(self) -> None:
        """End everything that was started here, and take its sockets away."""
        for bridge in self._bridges:
            bridge.close()
        self.entry()
        for entry in self._seen:
            if entry.is_alive():
                os.kill(entry.pid, signal.SIGTERM)
        for entry in self._seen:
            self._end(entry)
            remove_socket_directory(Path(entry.socket).parent)
        remove_socket_directory(Path(socket_directory.usual_path(str(self.state_directory))))

    @staticmethod
    def _end(entry: registry.Entry) -> None:
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not entry.is_alive())
        if entry.is_alive():
            os.kill(entry.pid, signal.SIGKILL)
            wait_until(lambda: not entry.is_alive())


class Bridge:
    """A client command whose stdin and stdout are one socket of ours."""

    def __init__(
        self, command: Sequence[str], environment: dict[str, str], first: bytes = b""
    ) -> None:
        self.socket, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                command,
                stdin=theirs,
                stdout=theirs,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        self.socket.settimeout(LIMIT_S)
        line = self.line()
        assert line.startswith(MARKER), line
        self.marker: dict[str, Any] = json.loads(line[len(MARKER) :])
        if first:
            self.socket.sendall(first)

    def __enter__(self) -> Bridge:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def line(self) -> bytes:
        """The next line, and not a byte more."""
        line = bytearray()
        while not line.endswith(b"\n"):
            byte = self.socket.recv(1)
            assert byte, f"the client ended after {bytes(line)!r}"
            line += byte
        return bytes(line)

    def close(self) -> None:
        """End the command."""
        self.socket.close()
        try:
            self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class LinkClosed(Exception):
    """The client ended the link; `code` is that of its farewell, 0 without one."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Link:
    """The worker's end of a link: one thread, blocking."""

    def __init__(
        self,
        bridge: Bridge,
        installation: Installation,
        path: str = "/control",
        limit_bytes: int = messages.CONTROL_LIMIT_BYTES,
    ) -> None:
        self.bridge = bridge
        self.session = Session(limit_bytes)
        self.installation = installation
        self.notices: list[Any] = []
        self.data = bytearray()
        self.socket = websocket.create_connection(
            f"ws://cluster{path}", socket=bridge.socket, redirect_limit=0, timeout=LIMIT_S
        )

    def greet(self, **fields: Any) -> Any:
        """Send Hello; Welcome, Refused or Error."""
        return self.request(
            messages.Hello(
                **{
                    "versions": messages.VERSIONS,
                    "instance_id": self.installation.instance_id,
                    "cluster_id": self.installation.cluster_id,
                    "epoch": 1,
                    "generation": 1,
                    **fields,
                }
            )
        )

    def request(self, message: Any, limit_s: float = LIMIT_S) -> Any:
        """The answer to `message`."""
        wanted = self.session.request(message, limit_s)
        return self.answer(wanted, limit_s)

    def answer(self, wanted: int, limit_s: float = LIMIT_S) -> Any:
        """The answer to the request with this id; what comes before is kept."""
        self.flush()
        for item in self.items(limit_s):
            if isinstance(item, Reply) and item.to == wanted:
                return item.message
        raise AssertionError("unreachable")

    def items(self, limit_s: float = LIMIT_S) -> Iterator[Any]:
        """What comes in, for at most `limit_s`; notices are kept besides."""
        deadline = time.monotonic() + limit_s
        while True:
            left = deadline - time.monotonic()
            assert left > 0, "nothing more came in time"
            for item in self.receive(left):
                if isinstance(item, Notice):
                    self.notices.append(item.message)
                yield item

    def receive(self, limit_s: float = LIMIT_S) -> list[Any]:
        """What one frame means; binary frames on a data link go to `data`."""
        self.socket.settimeout(limit_s)
        try:
            frame = self.socket.recv_frame()
        except (websocket.WebSocketConnectionClosedException, ConnectionError) as error:
            raise LinkClosed(0, str(error)) from None
        if frame.opcode == websocket.ABNF.OPCODE_CLOSE:
            raise LinkClosed(int.from_bytes(frame.data[:2], "big"), frame.data[2:].decode())
        if frame.opcode == websocket.ABNF.OPCODE_PING:
            self.socket.pong(frame.data)
        if frame.opcode == websocket.ABNF.OPCODE_BINARY:
            self.data += frame.data
        is_text = frame.opcode == websocket.ABNF.OPCODE_TEXT
        return list(self.session.receive(frame.data)) if is_text else []

    def flush(self) -> None:
        """Send what the session has queued."""
        for text in self.session.texts_to_send():
            self.socket.send(text)

    def acknowledge(self, outbox_id: str, seq: int) -> None:
        """Send an Ack."""
        self.session.notify(messages.Ack(outbox_id, seq))
        self.flush()

    def wait_for(self, is_wanted: Callable[[Any], bool], limit_s: float = LIMIT_S) -> Any:
        """The first notice that is wanted, of those that came or will come."""
        for message in self.notices:
            if is_wanted(message):
                return message
        for item in self.items(limit_s):
            if isinstance(item, Notice) and is_wanted(item.message):
                return item.message
        raise AssertionError("unreachable")

    def wait_for_end(self, limit_s: float = LIMIT_S) -> LinkClosed:
        """How the client ends this link."""
        try:
            for _ in self.items(limit_s):
                pass
        except LinkClosed as error:
            return error
        raise AssertionError("unreachable")

    def read(self, tag: str, path: str, offset: int = 0, length: int = -1) -> bytes:
        """A file's bytes, checked against End."""
        self.data.clear()
        opened = self.request(messages.Open("transfer", 1, tag, path, offset, length))
        assert isinstance(opened, messages.Opened), opened
        end = self.wait_for(lambda message: isinstance(message, messages.End))
        self.notices.remove(end)
        assert end.bytes_sent == len(self.data)
        return bytes(self.data)

    def close(self) -> None:
        """Say goodbye and end the bridge."""
        with contextlib.suppress(websocket.WebSocketException, OSError):
            self.socket.close(timeout=5)
        self.bridge.close()
