"""The daemon's log: bounded files, one line an event, never a reason to die."""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import os
import time
from typing import Any, Optional

from . import errors

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """`time level logger event key=value ...`, values as JSON: no value can forge a line."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__()
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        parts = [
            self.formatTime(record),
            record.levelname,
            record.name,
            record.getMessage().replace("\n", "\\n"),
        ]
        for name, value in vars(record).items():
            if name not in _STANDARD:
                parts.append(f"{name}={json.dumps(value, default=str)}")
        line = " ".join(parts)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class PatientHandler(logging.handlers.RotatingFileHandler):
    """A rotating file that goes on after a full disk, and then says what was lost."""

    def __init__(self, path: str, size_bytes: int, files: int) -> None:
        self.lost = 0
        super().__init__(
            path, maxBytes=size_bytes, backupCount=files - 1, encoding="utf-8", delay=True
        )
        self.setFormatter(LineFormatter())

    def _open(self) -> Any:
        descriptor = os.open(
            self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        return os.fdopen(descriptor, "a", encoding="utf-8")

    def emit(self, record: logging.LogRecord) -> None:
        lost_before = self.lost
        super().emit(record)
        if lost_before and self.lost == lost_before:
            self.lost = 0
            super().emit(_lost_record(lost_before))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        # Not to stderr, as the base class does: nobody reads a daemon's, and it must not grow.
        self.lost += 1
        stream: Optional[Any] = self.stream
        self.stream = None
        if stream is not None:
            with contextlib.suppress(OSError):  # its buffered rest is counted above
                stream.close()


def configure(directory: str, name: str, size_bytes: int, files: int, level: str) -> PatientHandler:
    """Log to `<directory>/<name>.log`; SettingsError if the directory can never be written."""
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        is_usable = os.access(directory, os.W_OK | os.X_OK)
    except (PermissionError, FileExistsError, NotADirectoryError):
        is_usable = False
    except OSError:
        is_usable = True  # full, or away for now: the handler tries again at each line
    if not is_usable:
        raise errors.SettingsError(f"HPC_LOG_DIRECTORY {directory} can't be written by this user.")
    handler = PatientHandler(os.path.join(directory, f"{name}.log"), size_bytes, files)
    root = logging.getLogger()
    root.setLevel(level)
    root.addHandler(handler)
    logging.captureWarnings(True)
    return handler


def _lost_record(count: int) -> logging.LogRecord:
    return logging.makeLogRecord(
        {
            "name": __name__,
            "levelno": logging.WARNING,
            "levelname": "WARNING",
            "msg": "log_lines_lost",
            "count": count,
        }
    )
