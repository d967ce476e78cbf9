"""`#PBS` and `#BSUB` lines, which sbatch obeys as well as it can; PURE.

Rules:
- They count beside #SBATCH lines, and win over them; with a #BSUB line no #PBS line counts; with
  --ignore-pbs none does.
- The command line wins over them, so that they go into the wrapper as they are. One thing clashes
  instead: the memory of #BSUB with the memory on the command line.
- What sbatch does not know of them, and says so, is its refusal to tell.
Source: src/sbatch/xlate.c of Slurm, which man sbatch mentions at --ignore-pbs alone; all of it was
seen with 22.05.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping

from cluster_client.schedulers.slurm import options

_BSUB = "#BSUB"
_PBS = "#PBS"
WORDS = (_BSUB, _PBS)

# As for getopt(3): a letter and, if it takes a value, a colon.
_LETTERS = {_BSUB: "c:e:J:m:M:n:o:q:W:x", _PBS: "a:A:c:C:e:hIj:J:k:l:m:M:N:o:p:q:r:S:t:u:v:VW:z"}
_LONG = {
    _BSUB: {"job_name": "J", "memory_limit": "M"},
    _PBS: {"job_name": "N", "variable_list": "v"},
}
"""Those that matter here, by their letters; only sbatch has such long names."""
_NAME = {_BSUB: "J", _PBS: "N"}

Option = tuple[str, str, tuple[str, ...]]
"""The letter, the value, and the words as they were written."""


def job_names(lines: Iterable[tuple[str, str]]) -> list[str]:
    """The names that the lines give, the one that counts last."""
    found = list(lines)
    word = next((word for word in WORDS if any(word == one for one, _ in found)), "")
    options_found = (o for one, line in found if one == word for o in _read(word, line))
    return [value for letter, value, _ in options_found if letter == _NAME[word]]


def exported(word: str, line: str) -> str:
    """The option by which a line makes the job's environment, as it is written there; or ""."""
    if word != _PBS:
        return ""
    return next((words[0] for letter, _, words in _read(word, line) if letter == "v"), "")


def without_memory(word: str, line: str) -> list[str]:
    """What remains of a line beside a memory on the command line: itself, another, or none."""
    if word != _BSUB:
        return [line]
    written = list(_read(word, line))
    kept = [words for letter, _, words in written if letter != "M"]
    if len(kept) == len(written):
        return [line]
    words = [options.quoted(one) for words in kept for one in words]
    return [" ".join([word, *words])] if words else []


def _read(word: str, line: str) -> Iterator[Option]:
    """The options of a line, up to a word that is none; raises options.Unreadable."""
    try:
        words = shlex.split(line[len(word) :], comments=True)
    except ValueError as error:
        raise options.Unreadable(str(error)) from error
    while words and words[0].startswith("-"):
        first = words.pop(0)
        if first.startswith("--"):
            yield _long(_LONG[word], first, words)
        else:
            # bsub's only long option with one hyphen, which sbatch knows too.
            yield from _short(_LETTERS[word], "-c" if first == "-cwd" else first, words)


def _long(letters: Mapping[str, str], first: str, rest: list[str]) -> Option:
    name, equals, value = first[2:].partition("=")
    taken = [] if equals or not rest or rest[0].startswith("-") else [rest.pop(0)]
    return letters.get(name, ""), value or "".join(taken), (first, *taken)


def _short(known: str, first: str, rest: list[str]) -> Iterator[Option]:
    letters = first[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        if f"{letter}:" not in known:
            yield letter, "", (f"-{letter}",)
        elif letters or not rest:
            yield letter, letters, (f"-{letter}{letters}",)
            return
        else:
            value = rest.pop(0)
            yield letter, value, (f"-{letter}", value)
            return
