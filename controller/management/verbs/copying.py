"""`hpc file get`, `put` and `cat`: whole files, verified from end to end."""

from __future__ import annotations

import os
import posixpath
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ... import errors
from ...models import HpcJob
from ...services import files, jobs
from . import figures, names, saving, sending, tailing
from .terminal import Bar, Cleaner, Console, WrongUsage

STDOUT = "-"
LEAST_RATED_BYTES = 1_000_000


def get(console: Console, options: Namespace) -> int:
    """Fetch a file: it is here whole, or not at all."""
    if options.destination == STDOUT:
        if options.json:
            raise WrongUsage("With --json stdout is for the document: save the file, or leave it.")
        _pour_whole(console, options, is_raw=False)
        return 0
    job = jobs.load(options.job)
    target = saving.destination(options.destination, options.path, options.is_forced)
    begun_at = time.monotonic()
    with console.bar(_is_bar_wanted(options)) as bar:
        coming = _fetch(job, options, target, bar)
    told = {
        "job": job.pk,
        **names.described(options.path),
        "saved_as": names.described(target)["path"],
        "saved_as_b64": names.described(target)["path_b64"],
        "size_bytes": coming.size_bytes,
        "sha256": coming.sha256,
        "etag": coming.etag,
        "transfer": str(coming.transfer_id),
    }
    _tell_done(console, options, told, names.quoted(target), time.monotonic() - begun_at)
    return 0


def _fetch(job: HpcJob, options: Namespace, target: Path, bar: Bar) -> files.Download:
    """The file at `target`, whole, or an error and nothing."""
    shown = names.quoted(options.path)
    bar.progress(shown, 0, None)  # until the cluster has told the size
    try:
        with (
            files.download(job, os.fsencode(options.path)) as coming,
            saving.new_file(target, options.is_forced, coming.size_bytes) as file,
        ):
            for piece in _counted(coming, coming.size_bytes, options.path, bar):
                file.write(piece)
            file.keep(coming.sha256)
            return coming
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Stopped; nothing of {names.quoted(target)} was kept.") from None
    except errors.TransferBroken as broken:
        raise errors.TransferBroken(
            f"{shown} of job {job.pk} did not come whole, and nothing of it was kept: {broken}"
        ) from broken


def put(console: Console, options: Namespace) -> int:
    """Send a file: it is there whole, or not at all."""
    job = jobs.load(options.job)
    begun_at = time.monotonic()
    try:
        with (
            sending.source(options.file) as source,
            console.bar(_is_bar_wanted(options)) as bar,
        ):
            path = _place(job, options)
            stored = files.upload(job, os.fsencode(path), source.size_bytes, source.pieces(bar))
    except KeyboardInterrupt:
        # The last bytes may have gone just before.
        raise KeyboardInterrupt(
            f"Stopped; {names.quoted(options.file)} is stored whole, or not at all: see hpc file ls"
            f" {job.pk}."
        ) from None
    except errors.TransferBroken as broken:
        raise errors.TransferBroken(
            f"{names.quoted(options.file)} was not seen to arrive, and job {job.pk} has it whole,"
            f" or not at all: {broken}"
        ) from broken
    told = {
        "job": job.pk,
        **names.described(path),
        "size_bytes": stored.size_bytes,
        "sha256": stored.sha256,
        "etag": stored.etag,
        "transfer": str(stored.transfer_id),
    }
    where = f"{names.quoted(path)} of job {job.pk}"
    _tell_done(console, options, told, where, time.monotonic() - begun_at)
    return 0


def cat(console: Console, options: Namespace) -> int:
    """Print a file: as it is, but harmless on a terminal."""
    _pour_whole(console, options, is_raw=options.is_raw)
    return 0


def pour(
    console: Console, pieces: Iterable[bytes], size_bytes: int | None, name: str, *, is_raw: bool
) -> None:
    """Write what comes of a file to stdout; with a bar only where stdout is saved.

    In a pipe whoever reads may use the terminal too.
    """
    shown = tailing.Shown(console, None if is_raw else Cleaner())
    with console.bar(console.is_saved) as bar:
        for piece in _counted(pieces, size_bytes, name, bar):
            shown.write(piece)
    shown.end()


def _pour_whole(console: Console, options: Namespace, *, is_raw: bool) -> None:
    job = jobs.load(options.job)
    try:
        with files.download(job, os.fsencode(options.path)) as coming:
            pour(console, coming, coming.size_bytes, options.path, is_raw=is_raw)
    except KeyboardInterrupt:
        shown = names.quoted(options.path)
        raise KeyboardInterrupt(f"Stopped; {shown} was not shown whole.") from None
    except errors.TransferBroken as broken:
        raise errors.TransferBroken(
            f"{names.quoted(options.path)} of job {job.pk} did not come whole; what was written is"
            f" not the file: {broken}"
        ) from broken


def _counted(
    coming: Iterable[bytes], size_bytes: int | None, name: str, bar: Bar
) -> Iterator[bytes]:
    done_bytes = 0
    shown = names.quoted(name)
    bar.progress(shown, 0, size_bytes)
    for piece in coming:
        yield piece
        done_bytes += len(piece)
        bar.progress(shown, done_bytes, size_bytes)


def _place(job: HpcJob, options: Namespace) -> str:
    """Where the file is to lie in the job's directory: below what is a directory there."""
    path: str = options.path or ""
    name = "" if options.file == sending.STDIN else names.last_of(options.file)
    entry = None
    if path.strip("/."):
        entry = _found(job, path)
    if entry is None and path.strip("/.") and path.endswith("/"):
        raise errors.NotFound(
            f"Job {job.pk} has no directory {names.quoted(path)}: name one that is there (see with"
            f" hpc file ls {job.pk}), for nothing but the job makes directories."
        )
    if not path.strip("/.") or path.endswith("/") or (entry and entry["type"] == "directory"):
        if not name:
            raise WrongUsage(
                "What comes through stdin has no name: say PATH, with the file's name."
            )
        path = posixpath.join(path, name)
        entry = _found(job, path)
    if entry is not None and not options.is_forced:
        raise errors.Refused(
            f"{names.quoted(path)} of job {job.pk} is there already: --force replaces it."
        )
    return path


def _found(job: HpcJob, path: str) -> dict[str, Any] | None:
    with suppress(errors.NotFound):
        return files.stat(job, path)
    return None


def _tell_done(
    console: Console, options: Namespace, told: dict[str, Any], where: str, took_s: float
) -> None:
    if options.json:
        console.document({**told, "took_s": round(took_s, 3)})
    elif not options.is_quiet:
        size_bytes = told["size_bytes"]
        # Of little, the time is that of the way, and a rate says nothing.
        rate = f" ({figures.size(size_bytes / took_s)}/s)" if size_bytes > LEAST_RATED_BYTES else ""
        amount = f"{figures.size(size_bytes)} in {took_s:.1f} s{rate}"
        console.line(f"{where}: {amount}, sha256 {told['sha256']}")


def _is_bar_wanted(options: Namespace) -> bool:
    return not options.json and not options.is_quiet
