"""`python -m ops ...`, run as a person does at a terminal."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

STOP_LIMIT_S = 60


@contextlib.contextmanager
def running(command: str, checkout: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process group of its own; a failed test does not leave it running."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ops", command],
        cwd=checkout,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.stdout.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_LIMIT_S)
