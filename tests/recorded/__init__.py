"""What real programs printed: a file holds the command, its status and both outputs."""

from __future__ import annotations

import re
from pathlib import Path

from cluster_client.schedulers import Output

_FILE = re.compile(r"\$ .*\n\[status (-?\d+)\]\n\[stdout\]\n(.*)\[stderr\]\n(.*)", re.DOTALL)


def output(name: str) -> Output:
    """The recorded end of the command in `name`.txt, such as "slurm/sacct-timeout"."""
    text = (Path(__file__).parent / f"{name}.txt").read_text()
    found = _FILE.fullmatch(text)
    assert found, f"{name} is no recording"
    return Output(int(found[1]), found[2], found[3])
