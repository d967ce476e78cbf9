"""The end of a file on a cluster: its last lines without the rest, and what is written to it next.

Rules:
- The file is asked about once a poll, and read only if it has grown.
- The job is looked at before its file: what it wrote until its end is then shown before we stop.
- A file that is not there yet is waited for as long as the job has not ended. One that became
  shorter was begun anew, and is shown from its beginning.
- What passes (a files worker that restarts, a login that is held back) is tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ... import conf, errors
from ...models import HpcJob
from ...services import files, jobs
from . import figures, names, waits
from .saving import NotSaved
from .terminal import Cleaner, Console

BLOCK_BYTES = 64 << 10
SEARCH_MOST_BYTES = 8 << 20
"""Of the file's end, where its last lines are looked for: data without lines is not read whole."""
POLL_S = 0.5
IDLE_POLL_S = 1.0
QUIET_POLLS = 2
"""Polls after the job's end that bring nothing: by then its last words have come over NFS too."""
PAUSE_MOST_S = 15.0
TROUBLE_LIMIT_S = 300.0


@dataclass(frozen=True)
class Shown:
    """Where the bytes go: to stdout, harmless on a terminal unless they are wanted as they are."""

    console: Console
    cleaner: Cleaner | None

    def write(self, data: bytes, is_last: bool = False) -> None:
        """Raises NotSaved if stdout goes to a disk that is full."""
        try:
            self.console.raw(data, self.cleaner, is_last)
        except BrokenPipeError:
            raise  # nobody reads any more, which is no failure
        except OSError as problem:
            self.console.abandon()
            raise NotSaved(
                f"stdout can't be written: {problem.strerror}; what it got is not whole."
            ) from problem

    def end(self) -> None:
        """Let out what was held back as the beginning of an escape."""
        self.write(b"", is_last=True)


def size_of(job: HpcJob, path: str) -> int:
    """How long the file is now. Raises NotFound, and Refused if it is no file."""
    entry = files.stat(job, path)
    if entry["type"] != "file":
        raise errors.Refused(
            f"{names.quoted(path)} of job {job.pk} is no regular file ({entry['type']}):"
            " name a file."
        )
    return int(entry["size_bytes"])


def start_of_last(
    read: Callable[[int, int], bytes],
    size_bytes: int,
    lines: int,
    block_bytes: int = BLOCK_BYTES,
    most_bytes: int = SEARCH_MOST_BYTES,
) -> int:
    """Where the last `lines` lines of a file begin; `read(offset, length)` gives its bytes.

    Looks at it from its end, block by block, `most_bytes` at most. A last line without an end
    counts as one.
    """
    if lines <= 0:
        return size_bytes
    end, left = size_bytes, lines
    first = max(0, size_bytes - most_bytes)
    while end > first:
        begin = max(first, end - block_bytes)
        block = read(begin, end - begin)
        # The newline that ends the file ends its last line, and begins none.
        position = len(block) - 1 if end == size_bytes and block.endswith(b"\n") else len(block)
        while (position := block.rfind(b"\n", 0, position)) >= 0:
            left -= 1
            if not left:
                return begin + position + 1
        end = begin
    return first


class Tail:
    """One file of a job, and how much of it was shown."""

    def __init__(self, console: Console, job: HpcJob, path: str, shown: Shown) -> None:
        self._console = console
        self._job = job
        self._path = path
        self._shown = shown
        self._position: int | None = None
        self._is_waiting = False

    def show_last(self, lines: int) -> None:
        """The last lines as they stand now."""
        size_bytes = size_of(self._job, self._path)
        self._position = start_of_last(self._read, size_bytes, lines, self._block_bytes())
        if self._position and size_bytes - self._position == SEARCH_MOST_BYTES:
            amount = figures.size(SEARCH_MOST_BYTES)
            self._console.note(f"The lines of {self._named()} are long: only its last {amount}.")
        self._show_until(size_bytes)

    def follow(self, lines: int) -> None:
        """Show what comes, until the job has ended and all is shown.

        Raises NotFound if the file is not there by then, and what has not passed in a while.
        """
        quiet_polls = 0
        trouble = Trouble(self._console)
        while True:
            job = self._job = jobs.load(self._job.pk)
            is_over = job.status in waits.DONE
            has_grown = False
            try:
                has_grown = self._step(lines)
                trouble.passed()
            except errors.NotFound as missing:
                if is_over and quiet_polls >= QUIET_POLLS:
                    self._give_up(missing)
                    return
                self._tell_waiting()
            except errors.Unavailable as problem:
                trouble.wait(problem)
                continue
            quiet_polls = quiet_polls + 1 if is_over and not has_grown else 0
            if quiet_polls > QUIET_POLLS:
                return
            time.sleep(POLL_S if has_grown or is_over else IDLE_POLL_S)  # nothing tells us of bytes

    def _step(self, lines: int) -> bool:
        """Look once, and show what is new; whether there was anything."""
        if self._position is None:
            self.show_last(lines)
            return bool(self._position)
        size_bytes = size_of(self._job, self._path)
        if size_bytes < self._position:
            self._console.note(f"{self._named()} was begun anew; from its beginning:")
            self._position = 0
        return self._show_until(size_bytes)

    def _show_until(self, size_bytes: int) -> bool:
        begun_at = position = self._position or 0
        while position < size_bytes:
            piece = self._read(position, min(size_bytes - position, self._block_bytes(32)))
            if not piece:
                break  # it became shorter meanwhile: the next look will tell
            self._shown.write(piece)
            position += len(piece)
            self._position = position
        return position > begun_at

    def _read(self, offset: int, length: int) -> bytes:
        return files.read(self._job, self._path, offset, length)[:length]

    def _block_bytes(self, blocks: int = 1) -> int:
        return min(BLOCK_BYTES * blocks, conf.get().file_read_limit_bytes)

    def _tell_waiting(self) -> None:
        if not self._is_waiting:
            self._is_waiting = True
            gone = "is gone" if self._position is not None else "is not there yet"
            self._console.note(f"{self._named()} {gone}; waiting for it (Ctrl-C stops).")
        if self._position is not None:
            self._position = 0  # whatever comes under that name is another file

    def _give_up(self, missing: errors.NotFound) -> None:
        if self._position is None:
            raise errors.NotFound(
                f"{self._named()} is not there, and the job has ended"
                f" ({self._job.status.label}): {missing}"
            )

    def _named(self) -> str:
        return f"{names.quoted(self._path)} of job {self._job.pk}"


class Trouble:
    """What keeps us from the file for a while: told once, tried again ever more slowly."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began_at: float | None = None
        self._pause_s = POLL_S

    def passed(self) -> None:
        """The file could be reached."""
        if self._began_at is not None:
            self._console.note("It goes on.")
        self._began_at, self._pause_s = None, POLL_S

    def wait(self, problem: errors.Unavailable) -> None:
        """Wait before the next try. Raises `problem` once it has lasted for too long."""
        now = time.monotonic()
        if self._began_at is None:
            self._began_at = now
            self._console.note(f"{problem} It is tried again (Ctrl-C stops).")
        if now - self._began_at > TROUBLE_LIMIT_S:
            raise problem
        self._pause_s = min(2 * self._pause_s, PAUSE_MOST_S)
        time.sleep(max(self._pause_s, min(problem.retry_after_s, PAUSE_MOST_S)))
