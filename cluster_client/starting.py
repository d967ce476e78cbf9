"""How a daemon comes to run detached: `client.py start`.

Make way (an older daemon retires, the socket directory is locked), start a child with the lock in
its hands, wait for its report. The child reports through a pipe, so that a daemon that can't
start says why.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from typing import Any, Optional, Union

from . import (
    account,
    configuration,
    control,
    definitions,
    dial,
    errors,
    host,
    lines,
    registration,
    registry,
    socket_directory,
    sources,
)
from .configuration import Settings
from .fence import Fence
from .filesystem import Filesystem
from .socket_directory import SocketDirectory

STANDARD_ERROR = "stderr"
NO_SPACE = "no_space"
DOCUMENT_LIMIT_S = 60.0
REPORT_LIMIT_S = 60.0
RETIRE_LIMIT_S = 30.0
LOOK_INTERVAL_S = 0.05

Answer = dict[str, Any]


def start_command(key: str) -> int:
    """`client.py start`: a detached daemon; 0 if one runs now."""
    dial.marker(status="ready", host=host.host_name())
    try:
        raw = lines.read_object(0, DOCUMENT_LIMIT_S, "The start document")
        document = configuration.read_document(raw, key)
        settings = configuration.load(sources.client_path(), document)
        way = make_way(settings)
        answer = way if isinstance(way, dict) else _spawn(settings, raw, way)
    except (errors.ClientError, OSError) as error:
        answer = failure(error)
    lines.write_object(1, answer)
    return 0 if answer["status"] in ("started", "already") else 1


def make_way(settings: Settings) -> Union[Answer, SocketDirectory]:
    """The locked directory for a new daemon, or the answer why none is to be started.

    A daemon of an older generation on this host is told to end and may store what is in flight; if
    it takes too long, or stands still, it is fenced off. One on another host finds out by the fence
    of the new daemon.
    """
    account.check_user(settings.allow_root)
    account.make_directory(settings.state_directory)
    fence = Fence(Filesystem(), settings.state_directory, settings.generation)
    deadline = time.monotonic() + RETIRE_LIMIT_S
    told: Optional[registry.Entry] = None
    while True:
        newest = fence.read().generation
        if newest > settings.generation:
            return _too_old(settings, newest)
        entry = registry.read(settings.state_directory)
        answer = None if entry is None else _judge(entry, settings)
        if answer is not None:
            return answer
        older = entry if entry is not None and entry.is_alive() else None
        if older is not None and not older.is_same_process(told):
            control.terminate(older)
            told = older
        directory = None
        if older is None:
            directory = socket_directory.acquire(settings.state_directory)
        is_frozen = older is not None and host.is_frozen(older.pid)
        if directory is None and (is_frozen or time.monotonic() > deadline):
            # Fenced off, the older daemon can harm nothing when it wakes.
            fence.take()
            directory = socket_directory.fresh()
        if directory is not None:
            _note_retirement(settings, told)
            return directory
        time.sleep(LOOK_INTERVAL_S)  # nothing announces that another process lets go


def _note_retirement(settings: Settings, told: Optional[registry.Entry]) -> None:
    """Say why the older daemon ended; of one that vanished the new one tells by itself."""
    if told is not None and registry.read(settings.state_directory) is None:
        cause = f"retired: generation {settings.generation} took over"
        registration.note_death(Filesystem(), settings.state_directory, told, cause)


def failure(error: Exception) -> Answer:
    """The answer for a start that failed with `error`."""
    if isinstance(error, errors.NotStored):
        code = error.reason
    else:
        code = error.code if isinstance(error, errors.ClientError) else "os_error"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        code = NO_SPACE
    generation = error.generation if isinstance(error, errors.Fenced) else 0
    what_to_do = " Make room there, or have the quota raised." if code == NO_SPACE else ""
    return answer("failed", 0, generation, f"{error}{what_to_do}", code)


def answer(status: str, pid: int, generation: int, detail: str, code: str = "") -> Answer:
    """The last line of a start."""
    return {
        "status": status,
        "pid": pid,
        "host": host.host_name(),
        "generation": generation,
        "detail": detail,
        "code": code,
    }


def _judge(entry: registry.Entry, settings: Settings) -> Optional[Answer]:
    """The answer if the daemon of `entry` stands in the way for good."""
    if entry.is_here() and not entry.is_alive():
        return None
    if entry.generation > settings.generation:
        return _too_old(settings, entry.generation)
    if entry.generation < settings.generation:
        return None
    if not entry.is_here():
        detail = f"Generation {entry.generation} is registered on {entry.host}."
        return answer("failed", 0, entry.generation, detail, "elsewhere")
    detail = f"The daemon of generation {entry.generation} runs, pid {entry.pid}."
    return answer("already", entry.pid, entry.generation, detail)


def _too_old(settings: Settings, newest: int) -> Answer:
    detail = f"Generation {newest} has taken over; {settings.generation} is too old to start."
    return answer("failed", 0, newest, detail, "retired")


def _spawn(settings: Settings, raw: dict[str, Any], directory: SocketDirectory) -> Answer:
    key = f"{settings.instance_id}.{settings.cluster_id}"
    errors_path = os.path.join(settings.state_directory, STANDARD_ERROR)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    reader, writer = os.pipe()
    with os.fdopen(os.open(errors_path, flags, 0o600), "wb") as errors_file:
        child = subprocess.Popen(
            [
                *(sys.executable, "-I", sources.program(), "serve", key),
                *("--report", str(writer), "--lock", str(directory.lock)),
                *("--directory", directory.path),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors_file,
            env=sources.kept_environment(definitions.NAMES),
            cwd="/",
            start_new_session=True,
            pass_fds=(writer, directory.lock),
        )
    os.close(writer)
    if child.stdin is None:
        raise AssertionError("the child has a pipe on stdin")
    try:
        lines.write_object(child.stdin.fileno(), raw)
        child.stdin.close()
        report = lines.read_line(reader, REPORT_LIMIT_S)
    except BrokenPipeError:
        report = b""
    except TimeoutError:
        child.kill()
        child.wait()
        detail = f"The daemon did not answer within {REPORT_LIMIT_S:g} s."
        return answer("failed", 0, settings.generation, detail, "timeout")
    finally:
        os.close(reader)
    if report:
        found: Answer = json.loads(report)
        return found
    return answer("failed", 0, settings.generation, _last_words(child, errors_path), "died")


def _last_words(child: subprocess.Popen[bytes], path: str) -> str:
    status = child.wait(REPORT_LIMIT_S)
    with open(path, "rb") as file:
        said = file.read(1 << 16).decode("utf-8", "replace").strip().splitlines()
    words = said[-1] if said else "it said nothing"
    end = f"signal {-status}" if status < 0 else f"status {status}"
    return f"The daemon died at its start with {end}: {words}"
