"""The ways to serve: as the child of `start`, by hand in the foreground, attached to stdio."""

from __future__ import annotations

import os
from typing import Any

from . import (
    configuration,
    dial,
    errors,
    host,
    lines,
    socket_directory,
    sources,
    start_document,
    starting,
)
from .daemon import Daemon
from .socket_directory import SocketDirectory
from .stdio_socket import StdioSocket


def serve_detached(key: str, report: int, lock: int, path: str) -> int:
    """The child of `start`: the document on stdin, the report on descriptor `report`."""
    os.set_inheritable(report, False)
    try:
        raw = lines.read_object(0, starting.DOCUMENT_LIMIT_S, "The start document")
        daemon = _prepare(key, raw, socket_directory.adopt(path, lock))
        daemon.listen()
    except (errors.ClientError, OSError) as error:
        lines.write_object(report, starting.failure(error))
        return 1
    with open(os.devnull, "rb") as null:
        os.dup2(null.fileno(), 0)
    daemon.say_started()
    lines.write_object(report, _started(daemon))
    os.close(report)
    daemon.run()
    return 0


def serve_foreground(key: str) -> int:
    """`client.py serve`: the same by hand, with the document of the last start."""
    raw = start_document.last(key)
    settings = configuration.load(sources.client_path(), configuration.read_document(raw, key))
    way = starting.make_way(settings)
    if isinstance(way, dict):
        lines.write_object(1, way)
        return 1
    daemon = _prepare(key, raw, way)
    daemon.listen()
    daemon.say_started()
    lines.write_object(1, _started(daemon))
    daemon.run()
    return 0


def serve_attached(key: str) -> int:
    """`client.py serve --stdio`: lives and dies with the connection on stdin and stdout."""
    dial.marker(status="ready", host=host.host_name())
    try:
        raw = lines.read_object(0, starting.DOCUMENT_LIMIT_S, "The start document")
        settings = configuration.load(sources.client_path(), configuration.read_document(raw, key))
        way = starting.make_way(settings)
        if isinstance(way, dict):
            lines.write_object(1, way)
            return 1
        daemon = _prepare(key, raw, way)
        daemon.attach()
    except (errors.ClientError, OSError) as error:
        lines.write_object(1, starting.failure(error))
        return 1
    daemon.say_started()
    lines.write_object(1, _started(daemon))
    daemon.run_attached(StdioSocket())
    return 0


def _prepare(key: str, raw: dict[str, Any], directory: SocketDirectory) -> Daemon:
    settings = configuration.load(sources.client_path(), configuration.read_document(raw, key))
    daemon = Daemon(settings, directory)
    daemon.start()
    start_document.keep(settings.state_directory, raw)
    return daemon


def _started(daemon: Daemon) -> starting.Answer:
    entry = daemon.entry
    detail = f"The daemon of generation {entry.generation} runs, pid {entry.pid}."
    return starting.answer("started", entry.pid, entry.generation, detail)
