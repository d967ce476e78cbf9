"""How sbatch reads the options on a directive line: short, long, abbreviated, quoted; PURE.

Source: https://slurm.schedmd.com/sbatch.html; getopt(3) for abbreviations.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

_SHORT = {
    "A": "account", "B": "extra-node-info", "C": "constraint", "D": "chdir", "F": "nodefile",
    "G": "gpus", "H": "hold", "I": "immediate", "J": "job-name", "L": "licenses", "M": "clusters",
    "N": "nodes", "O": "overcommit", "Q": "quiet", "S": "core-spec", "V": "version", "W": "wait",
    "a": "array", "b": "begin", "c": "cpus-per-task", "d": "dependency", "e": "error",
    "h": "help", "i": "input", "k": "no-kill", "m": "distribution", "n": "ntasks", "o": "output",
    "p": "partition", "q": "qos", "s": "oversubscribe", "t": "time", "u": "usage", "v": "verbose",
    "w": "nodelist", "x": "exclude",
}  # fmt: skip

_WITHOUT_VALUE_NAMES = """
    contiguous help hold ignore-pbs no-requeue overcommit oversubscribe parsable quiet reboot
    requeue spread-job test-only usage use-min-nodes verbose version wait
"""
_WITHOUT_VALUE = frozenset(_WITHOUT_VALUE_NAMES.split())
_WITH_OPTIONAL_VALUE = frozenset(("exclusive", "get-user-env", "nice", "no-kill", "propagate"))
"""Their value, if any, follows "=" (or the letter) at once, never as the next word."""

# All long names, since getopt_long takes any prefix that is not ambiguous.
_LONG_NAMES = """
    acctg-freq account array batch bb bbf begin chdir cluster-constraint clusters comment
    constraint container contiguous core-spec cores-per-socket cpu-freq cpus-per-gpu
    cpus-per-task deadline delay-boot dependency distribution error exclude exclusive export
    export-file extra-node-info get-user-env gid gpu-bind gpu-freq gpus gpus-per-node
    gpus-per-socket gpus-per-task gres gres-flags help hint hold ignore-pbs immediate input
    job-name kill-on-invalid-dep licenses mail-type mail-user mcs-label mem mem-bind
    mem-per-cpu mem-per-gpu mincpus network nice no-kill no-requeue nodefile nodelist nodes
    ntasks ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode output
    overcommit oversubscribe parsable partition power prefer priority profile propagate qos
    quiet reboot requeue reservation signal sockets-per-node spread-job switches test-only
    thread-spec threads-per-core time time-min tmp uid usage use-min-nodes verbose version wait
    wait-all-nodes wckey wrap
"""
_LONG = frozenset(_LONG_NAMES.split())


class Unreadable(ValueError):
    """A directive line that sbatch could not read either."""


@dataclass(frozen=True)
class Option:
    """One option as it was written (`words`), and what it means. `name` "": a stray word."""

    name: str
    value: str
    words: tuple[str, ...]


def read(text: str) -> list[Option]:
    """The options in what follows the directive's word; raises Unreadable."""
    try:
        words = shlex.split(text, comments=True)
    except ValueError as error:
        raise Unreadable(str(error)) from error
    options = []
    while words:
        word = words.pop(0)
        if word.startswith("--") and len(word) > 2:
            options.append(_long(word, words))
        elif word.startswith("-") and len(word) > 1:
            options.extend(_short(word, words))
        else:
            options.append(Option("", "", (word,)))
    return options


def _long(word: str, rest: list[str]) -> Option:
    written, equals, value = word[2:].partition("=")
    name = full_name(written)
    if equals or name not in _LONG or name in _WITHOUT_VALUE | _WITH_OPTIONAL_VALUE or not rest:
        return Option(name, value, (word,))
    value = rest.pop(0)
    return Option(name, value, (word, value))


def full_name(written: str) -> str:
    """The option that `written` abbreviates; itself if none or several could be meant."""
    if written in _LONG:
        return written
    fitting = [name for name in _LONG if name.startswith(written)]
    return fitting[0] if len(fitting) == 1 else written


def _short(word: str, rest: list[str]) -> Iterator[Option]:
    """The options of a word like -N4, -Hn or -p; a value takes what is left of it."""
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        name = _SHORT.get(letter, "")
        if name in _WITHOUT_VALUE:
            yield Option(name, "", (f"-{letter}",))
        elif letters or not rest or name in _WITH_OPTIONAL_VALUE:
            yield Option(name, letters, (f"-{letter}{letters}",))
            return
        else:
            value = rest.pop(0)
            yield Option(name, value, (f"-{letter}", value))
            return


def quoted(word: str) -> str:
    """`word` as sbatch reads it back from a directive line."""
    if re.fullmatch(r"[^\s\"'#\\]+", word):
        return word
    return f"'{word}'" if '"' in word else f'"{word}"'
