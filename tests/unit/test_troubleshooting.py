"""docs/troubleshooting.md has an entry for each reason that people may be shown, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "troubleshooting.md"
TREES = ("controller", "workers", "cluster_client")

REASON_AT = {
    "CannotConnect": 0,
    "Refusal": 0,
    "Error": 0,
    "Refused": 0,
    "refused": 0,
    "Rejected": 1,
    "block": 1,
    "finish": 1,
    "finish_running": 2,
    "_end": 2,
    "answer": 4,
    "failed": 0,
}
"""Calls that take a reason, and which argument it is."""
REASON_NAMES = {"reason", "blocked_reason"}
"""Keywords, keys of dictionaries and names of properties that hold one."""
CODE = re.compile(r"[a-z]+(_[a-z]+)*")

NOT_SHOWN = {
    # Bases that nothing raises as they are.
    "error", "link_error", "login_failed", "bad_credentials", "unreachable", "client_error",
    "protocol_error",
    # Answers to a worker of this project that breaks the protocol, or to a portal's code.
    "out_of_order", "unknown_message", "wrong_purpose", "frame_too_large",
    "illegal_move", "invalid", "not_found", "cannot_connect", "cluster_offline", "misconfigured",
    "not_all_submitted", "lease_lost", "link_lost", "queue_unreachable", "malformed_frame",
    "sequence_gap", "wrong_usage",
    # Of a file here, told on the command line in a sentence of its own (docs/files.md).
    "not_saved", "unreadable",
    # What follows from it is shown as the job's status.
    "cancelled",
}  # fmt: skip
BY_OTHER_MEANS = {"limits", "os_error", "start_failed"}
"""Shown, and named in a table or an expression that is not looked into here."""


class Module:
    """One source file: its constants and the reasons that it names."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.constants = {
            target.id: node.value.value
            for node in self.tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
            for target in node.targets
            if isinstance(target, ast.Name)
        }

    def reasons(self) -> Iterator[ast.expr]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield from _of_call(node)
            elif isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value in REASON_NAMES:
                        yield value
            elif isinstance(node, ast.ClassDef):
                yield from _of_class(node)


def _of_call(node: ast.Call) -> Iterator[ast.expr]:
    name = getattr(node.func, "attr", None) or getattr(node.func, "id", "")
    at = REASON_AT.get(name)
    if at is not None and len(node.args) > at:
        yield node.args[at]
    yield from (keyword.value for keyword in node.keywords if keyword.arg in REASON_NAMES)


def _of_class(node: ast.ClassDef) -> Iterator[ast.expr]:
    for line in node.body:
        if isinstance(line, ast.Assign) and getattr(line.targets[0], "id", "") == "code":
            yield line.value
        elif isinstance(line, ast.FunctionDef) and line.name in REASON_NAMES:
            yield from (one for one in ast.walk(line) if isinstance(one, ast.Constant))


@cache
def trees() -> list[ast.Module]:
    """All that is shipped."""
    paths = (path for tree in TREES for path in (CHECKOUT / tree).rglob("*.py"))
    return [ast.parse(path.read_text()) for path in paths]


@cache
def reasons() -> frozenset[str]:
    """Every word in the three trees that a person may be shown as the reason of something."""
    modules = [Module(tree) for tree in trees()]
    everywhere = {name: value for one in modules for name, value in one.constants.items()}
    found = set()
    for one in modules:
        for value in one.reasons():
            name = getattr(value, "attr", None) or getattr(value, "id", None)
            word = one.constants.get(name or "", everywhere.get(name or ""))
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                word = value.value
            if word and CODE.fullmatch(word):
                found.add(word)
    return frozenset(found)


@cache
def literals() -> str:
    """All text in the three trees, piece by piece, as a person may be shown it."""
    nodes = (node for tree in trees() for node in ast.walk(tree))
    texts = (getattr(node, "value", None) for node in nodes if isinstance(node, ast.Constant))
    return "\0".join(" ".join(text.split()) for text in texts if isinstance(text, str))


def test_every_reason_has_an_entry_and_every_entry_a_reason() -> None:
    entries = re.findall(r"^### `(\w+)`$", PAGE.read_text(), re.MULTILINE)
    assert len(entries) == len(set(entries))
    shown = (reasons() - NOT_SHOWN) | BY_OTHER_MEANS
    assert shown - set(entries) == set(), "give it an entry in docs/troubleshooting.md"
    assert set(entries) - shown == set(), "nothing gives this reason any more: take its entry out"


def test_exceptions_to_that_are_still_there() -> None:
    assert NOT_SHOWN - reasons() == set()
    told = literals().split("\0")
    assert BY_OTHER_MEANS - set(told) == set()


def test_sentences_are_quoted_as_they_are_shown() -> None:
    told = literals()
    quoted = re.findall(r"^> (.*)$", PAGE.read_text(), re.MULTILINE)
    pieces = {piece.strip() for sentence in quoted for piece in sentence.split("…")}
    wrong = {piece for piece in pieces if len(piece) > 3 and piece not in told}
    assert wrong == set(), "docs/troubleshooting.md quotes this; a sentence has changed"
