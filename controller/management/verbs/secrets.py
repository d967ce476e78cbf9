"""`hpc secrets ...`: which key opens what, and sealing all with the newest key."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from ...services import secrets
from .terminal import Console


def add_parsers(nouns: Any) -> None:
    """Add the noun `secrets` with its verbs."""
    noun = nouns.add_parser("secrets", help="the keys that stored secrets are encrypted with")
    verbs = noun.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, purpose, run in (
        ("check", "how many secrets each key of HPC_SECRET_KEYS opens", check),
        ("rotate", "encrypt all secrets with the newest key of HPC_SECRET_KEYS", rotate),
    ):
        parser = verbs.add_parser(verb, help=purpose)
        parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
        parser.set_defaults(run=run)


def check(console: Console, options: Namespace) -> int:
    """How many secrets each key opens; 1 if there are some that none opens."""
    survey = secrets.survey()
    if options.json:
        console.document({"opened_by_key": survey.opened, "locked": _documents(survey.locked)})
        return int(bool(survey.locked))
    rows = [(number, count, _use(number, count)) for number, count in enumerate(survey.opened, 1)]
    console.table(("KEY", "SECRETS", "WHAT IT IS FOR"), rows)
    return _tell(console, survey.locked)


def rotate(console: Console, options: Namespace) -> int:
    """Encrypt every secret with the newest key; 1 if there are some that no key opens."""
    bar = console.bar()
    try:
        done = secrets.rotate(
            lambda done, total: bar.show(f"{done} of {total} clusters", done / max(total, 1))
        )
    finally:
        bar.clear()
    if options.json:
        counts = {"resealed": done.resealed, "current": done.current}
        console.document({**counts, "locked": _documents(done.locked)})
        return int(bool(done.locked))
    console.line(
        f"Secrets encrypted anew with the newest key: {done.resealed};"
        f" already so before: {done.current}."
    )
    return _tell(console, done.locked)


def _use(number: int, count: int) -> str:
    if number == 1:
        return "the newest: encrypts what is entered"
    return "still needed: hpc secrets rotate" if count else "none: may be taken out"


def _tell(console: Console, locked: Sequence[secrets.Locked]) -> int:
    for one in locked:
        console.note(f"No key opens the {one.secret} of cluster {one.cluster}.")
    if locked:
        console.note(
            "They are left as they are: add the key that they were stored with to HPC_SECRET_KEYS,"
            " or enter them again."
        )
    return int(bool(locked))


def _documents(locked: Sequence[secrets.Locked]) -> list[dict[str, str]]:
    return [dataclasses.asdict(one) for one in locked]
