"""`python -m ops.installation STAMP LOCK...`: the virtual environment, from locked requirements.

STAMP is a file in the environment, made last: it holds a hash of the locks, and an installation
that was broken off is begun again. This module needs the standard library alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from ops import errors, interruption, orphans, processes

LIMIT_S = 1800.0
STOP_LIMIT_S = 3.0
STEP_S = 0.5


def main(stamp: Path, locks: list[Path]) -> int:
    """Install what the locks say, unless that was done; return the exit status."""
    asked = interruption.Interruption(when_awake=orphans.collect)
    asked.install()
    orphans.adopt()
    # What is interrupted does not clean up: its temporary files are gone with this directory.
    scratch = tempfile.mkdtemp(prefix="hpc-install-")
    try:
        install(stamp, locks, {**os.environ, "TMPDIR": scratch}, asked)
    except interruption.Stopped as stopped:
        print(f"{stopped} The installation is begun again the next time.", file=sys.stderr)
        return 128 + stopped.number
    except errors.OpsError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(scratch)
    return 0


def install(
    stamp: Path, locks: list[Path], environment: dict[str, str], asked: interruption.Interruption
) -> None:
    """Make the environment if nothing complete is there, and install the locks into it."""
    wanted = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        # The lock was only touched, by git for one.
        stamp.touch()
        return
    venv = stamp.parent
    # An old stamp says that its lock has changed, and may have less in it now.
    if stamp.exists() or not any(venv.glob("for-*")):
        version = ".".join(map(str, sys.version_info[:3]))
        print(f"Making the virtual environment {venv} with Python {version}.", flush=True)
        run([sys.executable, "-m", "venv", "--clear", str(venv)], environment, asked)
    print(f"Installing the locked packages into {venv}; the first time takes a minute.", flush=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input"]
    pip += ["--disable-pip-version-check", "--no-deps", "--require-hashes"]
    run([*pip, *(word for lock in locks for word in ("-r", str(lock)))], environment, asked)
    stamp.write_text(wanted)


def run(argv: list[str], environment: dict[str, str], asked: interruption.Interruption) -> None:
    """Run one step; its processes end with us, and with it."""
    child = processes.start(argv[0], argv, environment=environment)
    try:
        is_over = processes.wait_until(lambda: child.has_ended, LIMIT_S, asked.pause, STEP_S)
    except interruption.Stopped:
        asked.begin_stopping()
        raise
    finally:
        processes.stop(child, limit_s=STOP_LIMIT_S, pause=asked.pause)
    words = " ".join(argv[:4])
    if not is_over:
        raise errors.NotStarted(f"{words} did not end within {LIMIT_S:.0f} s.")
    if child.process.returncode != 0:
        raise errors.OpsError(f"{words} failed: see the lines above; the next time tries again.")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), [Path(lock) for lock in sys.argv[2:]]))
