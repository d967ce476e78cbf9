"""The daemon: engine, socket and registry brought together, from start to a clean end.

It ends when it is told to (SIGTERM, SIGINT), when a newer generation has taken over, or, attached
to a connection, when that ends. Its jobs go on.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import account, build, configuration, errors, handlers, logs, registry, socket_directory
from .configuration import Settings
from .engine import Engine, Identity
from .fence import Fence
from .filesystem import Filesystem
from .handlers import Socket
from .hub import Hub
from .registration import Registration
from .server import ControlServer
from .socket_directory import SocketDirectory

logger = logging.getLogger(__name__)

DRAIN_LIMIT_S = 20.0


class Daemon:
    """One daemon process; `directory` is where its socket goes."""

    def __init__(self, settings: Settings, directory: SocketDirectory) -> None:
        self._settings = settings
        self._directories = [directory]
        """The last one holds the socket; the first one's lock keeps other starts away."""
        self._listener = ("", 0)
        self._wake_reader, self._wake_writer = os.pipe()
        for end in (self._wake_reader, self._wake_writer):
            os.set_blocking(end, False)
        self._signal = 0
        self._is_disconnected = False
        self._cause = ""

    # Start --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Everything up to answering; raises ClientError or OSError with nothing left behind."""
        settings = self._settings
        account.check_user(settings.allow_root)
        # For what jobs and commands get to see; every file of our own has an explicit mode.
        os.umask(settings.umask)
        account.make_directory(settings.state_directory)
        account.make_directory(settings.job_working_directory, 0o777 & ~settings.umask)
        key = f"{settings.instance_id}.{settings.cluster_id}"
        logs.configure(
            settings.log_directory,
            key,
            settings.log_size_bytes,
            settings.log_files,
            settings.log_level,
        )
        self._registration = Registration(Filesystem(), settings)
        self._engine = Engine(
            settings,
            Identity(
                client_version=build.VERSION,
                build_hash=self._registration.entry.build_hash,
                scheduler_overruled=settings.scheduler_overruled,
                last_death=self._registration.note_predecessor(),
            ),
        )
        self._engine.start()
        self._hub = Hub(self._engine, settings.submit_parallel)
        self._server = ControlServer(self._hub, self.status)

    def listen(self) -> None:
        """Open the socket and tell the world."""
        listener, path, inode = socket_directory.listen(self._directories[-1])
        self._server.listen(listener)
        self._listener = (path, inode)
        self._registration.publish(path)

    def attach(self) -> None:
        """Tell the world that we serve a connection of our own, on no socket."""
        self._registration.publish("")

    def say_started(self) -> None:
        """Log the start, and write the pid file."""
        entry = self._registration.entry
        logger.info(
            "daemon_started",
            extra={"pid": entry.pid, "generation": entry.generation, "socket": entry.socket},
        )
        self._registration.write_pid_file()
        if configuration.is_set(self._settings, "HPC_WEBSOCKET_SERVER"):
            logger.warning("setting_reserved", extra={"setting": "HPC_WEBSOCKET_SERVER"})

    @property
    def entry(self) -> registry.Entry:
        """What the registry says of us."""
        return self._registration.entry

    def status(self) -> dict[str, Any]:
        """What `client.py status` shows."""
        entry = self._registration.entry
        return {
            "pid": entry.pid,
            "host": entry.host,
            "generation": entry.generation,
            "started_at": entry.started_at,
            "version": build.VERSION,
            "build_hash": entry.build_hash,
            "mode": "detached" if entry.socket else "attached",
            "link": self._hub.status(),
            "engine": self._engine.status(),
        }

    # Life ---------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve on the socket until there is a reason to end, then end cleanly."""
        with self._woken_by_signals():
            threading.Thread(target=self._await_retirement, daemon=True).start()
            while not self._cause:
                self._wait(self._settings.socket_check_s)
                self._cause = self._reason_to_end()
                if not self._cause:
                    self._check_socket()
            self.stop()

    def run_attached(self, socket: Socket) -> None:
        """Serve one connection, and end with it."""
        with self._woken_by_signals():
            threading.Thread(target=self._await_retirement, daemon=True).start()
            threading.Thread(target=self._serve_attached, args=(socket,), daemon=True).start()
            while not self._cause:
                self._wait(self._settings.socket_check_s)
                self._cause = self._reason_to_end()
                if not self._cause and self._is_disconnected:
                    self._cause = "its connection ended"
            self.stop()

    def stop(self) -> None:
        """Drain, withdraw and say why."""
        logger.info("daemon_ends", extra={"why": self._cause})
        self._server.stop()
        self._hub.stop(DRAIN_LIMIT_S)  # requests that are being carried out are answered
        self._engine.stop()
        self._registration.note_death(self._cause)
        try:
            self._registration.withdraw()
        except errors.NotStored as error:
            logger.warning("registry_kept", extra={"why": str(error)})
        logger.info("daemon_ended")
        for directory in self._directories:
            directory.remove()

    def _serve_attached(self, socket: Socket) -> None:
        try:
            handlers.serve(self._hub, socket)
        finally:
            self._is_disconnected = True
            self._wake()

    def _await_retirement(self) -> None:
        self._engine.is_retired.wait()
        self._wake()

    def _reason_to_end(self) -> str:
        entry = registry.read(self._settings.state_directory)
        is_replaced = (
            entry is not None
            and not entry.is_same_process(self.entry)
            and entry.generation >= self._settings.generation
        )
        newest = self._newest_generation()
        is_fenced = newest > self._settings.generation
        if self._engine.is_retired.is_set() or is_replaced or is_fenced:
            return f"retired: generation {newest} took over"
        if self._signal:
            return f"stopped by {signal.Signals(self._signal).name}"
        return ""

    def _newest_generation(self) -> int:
        fence = Fence(Filesystem(), self._settings.state_directory, self._settings.generation)
        try:
            return fence.read().generation
        except errors.ClientError as error:
            logger.warning("fence_unreadable", extra={"why": str(error)})
            return 0

    def _check_socket(self) -> None:
        path, inode = self._listener
        if not path:
            return
        try:
            if not socket_directory.is_inode(path, inode):
                logger.warning("socket_lost", extra={"path": path})
                self._directories.append(socket_directory.fresh())
                self.listen()
            elif not self._registration.is_published():
                logger.warning("registry_lost", extra={"path": path})
                self._registration.publish(path)
        except (errors.ClientError, OSError):
            logger.exception("socket_not_restored")

    # Waking -------------------------------------------------------------------------------------

    @contextmanager
    def _woken_by_signals(self) -> Iterator[None]:
        # A handler that sets an Event may deadlock with the main thread inside its lock; the
        # wake-up descriptor takes none. Source: signal.set_wakeup_fd in the Python library.
        numbers = (signal.SIGTERM, signal.SIGINT)
        previous = {number: signal.signal(number, self._note_signal) for number in numbers}
        # A handler, not SIG_IGN: that one would be inherited by every program started from here.
        hung_up = signal.signal(signal.SIGHUP, lambda _number, _frame: None)
        descriptor = signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor)
            signal.signal(signal.SIGHUP, hung_up)
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _note_signal(self, number: int, _frame: object) -> None:
        self._signal = number

    def _wake(self) -> None:
        try:
            os.write(self._wake_writer, b"\0")
        except BlockingIOError:
            return  # full of wake-ups already

    def _wait(self, limit_s: float) -> None:
        ready, _, _ = select.select([self._wake_reader], [], [], limit_s)
        if ready:
            os.read(self._wake_reader, 4096)
