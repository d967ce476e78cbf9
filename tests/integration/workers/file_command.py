"""`hpc file` run as a user runs it: here, or in a process of its own."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.core.management import call_command

from controller.models import HpcJob
from tests.stack import CHECKOUT, Stack

LIMIT_S = 120.0
"""After which a process is killed, so that a test that waits for its words ends."""


@dataclass
class Result:
    status: int
    data: bytes
    err: str

    @property
    def out(self) -> str:
        return self.data.decode()

    @property
    def sentence(self) -> str:
        """What went wrong, in one line and on stderr alone."""
        assert self.status == 1, self
        assert self.data == b""
        (line,) = self.err.splitlines()
        assert "Traceback" not in line
        return line


def hpc_file(*words: object) -> Result:
    """Run one verb in this process, its stdout a pipe."""
    raw = io.BytesIO()
    out, err = io.TextIOWrapper(raw, encoding="utf-8"), io.StringIO()
    status = 0
    try:
        call_command("hpc", "file", *map(str, words), stdout=out, stderr=err)
    except SystemExit as exit_:
        status = int(str(exit_.code))
    out.flush()
    return Result(status, raw.getvalue(), err.getvalue())


def argv(*words: object) -> list[str]:
    return [sys.executable, "manage.py", "hpc", "file", *map(str, words)]


@contextmanager
def started(
    stack: Stack, *words: object, extra: Mapping[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """One verb in a process of its own; ended at the end."""
    process = subprocess.Popen(
        argv(*words),
        cwd=CHECKOUT,
        env=stack.environment(extra),
        **{
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            **options,
        },
    )
    too_late = threading.Timer(LIMIT_S, process.kill)
    too_late.start()
    with process:
        try:
            yield process
        finally:
            too_late.cancel()
            process.kill()


def directory_of(stack: Stack, job: HpcJob) -> Path:
    """Where the job's files are."""
    return stack.client_path / "jobs" / job.tag
