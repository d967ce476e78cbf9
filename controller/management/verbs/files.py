"""`hpc file ...`: what is in a job's directory, over there, and its way to here and back.

A path is relative to the job's directory and may hold any bytes. What a cluster says is data: it is
never obeyed by a terminal, and never says where something is written here.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from itertools import chain
from typing import Any

from ... import errors
from ...services import files, jobs
from . import arguments, copying, figures, listing, names, tailing
from .terminal import Cleaner, Console

TAIL_LINES = 10


def add_parsers(nouns: Any) -> None:
    """Add the noun `file` with its verbs."""
    file = nouns.add_parser("file", help="list, read, fetch and send files of jobs")
    verbs = file.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_ls(verbs)
    _add_json(_of_path(verbs, "stat", "one file or directory", stat))
    _add_get(verbs)
    _add_put(verbs)
    _add_cat(verbs)
    _add_tail(verbs)


def ls(console: Console, options: Namespace) -> int:
    """What is in a directory, sorted by name; or the file itself."""
    job = jobs.load(options.job)
    found = listing.Listing(job, options.path, os.fsencode(options.after), options.limit)
    entries = iter(found)
    try:
        first = next(entries, None)
    except errors.Refused as refusal:
        first = _unless_directory(files.stat(job, options.path), refusal)
        entries, found.is_complete = iter(()), True
    every = chain([] if first is None else [first], entries)
    if options.json:
        told = [listing.document(entry) for entry in every]
        head = {"job": job.pk, **names.described(options.path)}
        console.document({**head, "entries": told, "is_complete": found.is_complete})
        return 0
    for entry in every:
        console.line(listing.line(entry, options.is_long))
    if not found.is_complete:
        console.note(f"There is more: go on with --after {names.quoted(found.last)}")
    return 0


def stat(console: Console, options: Namespace) -> int:
    """One file or directory; of a link what it leads to."""
    job = jobs.load(options.job)
    entry = files.stat(job, options.path)
    if options.json:
        head = {"job": job.pk, **names.described(options.path)}
        console.document({**head, **listing.document(entry)})
        return 0
    size_bytes = int(entry["size_bytes"])
    amount = figures.size(size_bytes)
    facts = [
        ("path", names.quoted(options.path or ".")),
        ("type", entry["type"]),
        ("size", amount if size_bytes < 1000 else f"{amount} ({size_bytes} bytes)"),
        ("changed", listing.changed(entry)),
    ]
    console.table(("WHAT", "VALUE"), facts)
    return 0


def tail(console: Console, options: Namespace) -> int:
    """The last lines of a file; with -f also what is written to it until the job ends."""
    job = jobs.load(options.job)
    shown = tailing.Shown(console, None if options.is_raw else Cleaner())
    end = tailing.Tail(console, job, options.path, shown)
    if not options.is_followed:
        end.show_last(options.lines)
        shown.end()
        return 0
    try:
        end.follow(options.lines)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Stopped; job {job.pk} is not touched by it.") from None
    shown.end()
    console.note(f"Job {job.pk} has ended: {jobs.load(job.pk).status.label}.")
    return 0


def _unless_directory(entry: dict[str, Any], refusal: errors.Refused) -> dict[str, Any]:
    """A file that was named instead of a directory is listed as itself."""
    if entry["type"] == "directory":
        raise refusal
    return entry


def _add_ls(verbs: Any) -> None:
    parser = _add_json(_of_path(verbs, "ls", "what is in a directory", ls, default=""))
    parser.add_argument("-l", dest="is_long", action="store_true", help="size, time, link targets")
    parser.add_argument(
        "--limit", type=arguments.count, metavar="N", help="at most so many entries"
    )
    parser.add_argument("--after", default="", metavar="NAME", help="only names after this one")


def _add_get(verbs: Any) -> None:
    parser = _add_quiet(_add_json(_of_path(verbs, "get", "fetch a file", copying.get)))
    parser.add_argument(
        "destination",
        nargs="?",
        metavar="DEST",
        help="file or directory here (this directory); - is stdout",
    )
    _add_force(parser)


def _add_put(verbs: Any) -> None:
    parser: ArgumentParser = verbs.add_parser("put", help="send a file")
    parser.add_argument("job", type=arguments.count, metavar="JOB", help="id of the job")
    parser.add_argument("file", metavar="FILE", help="a file here; - is stdin")
    parser.add_argument(
        "path", nargs="?", metavar="PATH", help="file or directory in the job's (its directory)"
    )
    _add_force(_add_quiet(_add_json(parser)))
    parser.set_defaults(run=copying.put)


def _add_cat(verbs: Any) -> None:
    _add_raw(_of_path(verbs, "cat", "print a file", copying.cat))


def _add_tail(verbs: Any) -> None:
    parser = _of_path(verbs, "tail", "the end of a file", tail, default=files.STDOUT)
    parser.add_argument(
        *("-n", "--lines"),
        type=arguments.natural,
        default=TAIL_LINES,
        metavar="N",
        help=f"how many lines ({TAIL_LINES})",
    )
    parser.add_argument(
        *("-f", "--follow"),
        dest="is_followed",
        action="store_true",
        help="go on until the job has ended",
    )
    _add_raw(parser)


def _of_path(
    verbs: Any, verb: str, purpose: str, run: Callable[..., int], default: str | None = None
) -> ArgumentParser:
    parser: ArgumentParser = verbs.add_parser(verb, help=purpose)
    parser.add_argument("job", type=arguments.count, metavar="JOB", help="id of the job")
    where = "in the job's directory"
    if default is None:
        parser.add_argument("path", metavar="PATH", help=where)
    else:
        told = f"{where} ({default or 'the directory itself'})"
        parser.add_argument("path", nargs="?", metavar="PATH", default=default, help=told)
    parser.set_defaults(run=run)
    return parser


def _add_json(parser: ArgumentParser) -> ArgumentParser:
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser


def _add_quiet(parser: ArgumentParser) -> ArgumentParser:
    parser.add_argument(
        *("-q", "--quiet"), dest="is_quiet", action="store_true", help="no bar, no closing line"
    )
    return parser


def _add_force(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--force", dest="is_forced", action="store_true", help="replace what is there"
    )


def _add_raw(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--raw",
        dest="is_raw",
        action="store_true",
        help="escapes as they are on a terminal too: only for files that you trust",
    )
