"""`python -m ops.bench [--json FILE] [--only NAME,...] [--quick]`: measures, prints, stops all."""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
import time
from pathlib import Path

from ops import errors
from ops.bench import figures

SUBMIT_PARALLEL = 4


def arguments(words: list[str]) -> argparse.Namespace:
    """The command line; exits with 2 and a sentence if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="make bench", description="Measure the product side by side with sbatch, scp and TCP."
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--only", default="", help="names of figures, with commas between them")
    parser.add_argument(
        "--quick", action="store_true", help="few rounds and small sizes: the figures mean little"
    )
    parser.add_argument(
        "--submit-parallel",
        type=int,
        default=SUBMIT_PARALLEL,
        help="HPC_SUBMIT_PARALLEL of the stack (default: %(default)s)",
    )
    parsed = parser.parse_args(words)
    parsed.names = [name for name in parsed.only.replace(" ", ",").split(",") if name]
    if unknown := sorted(set(parsed.names) - set(figures.NAMES)):
        parser.error(f"no such figure: {', '.join(unknown)}; there are {', '.join(figures.NAMES)}")
    return parsed


def main(words: list[str]) -> int:
    """Measure; 0 if everything asked for was measured, whatever the goals say."""
    asked = arguments(words)
    begun_at = time.monotonic()
    wanted = asked.names or figures.NAMES
    try:
        from ops.bench import rig  # loads Django

        say("Starting sshd, Slurm with accounting, PostgreSQL, Redis and the stack.")
        with rig.running(asked.submit_parallel, asked.quick) as made:
            # Its models can be imported once Django knows its settings.
            measurements = importlib.import_module("ops.bench.measurements")
            measured = measurements.run(made, wanted, say)
    except errors.OpsError as error:
        print(error, file=sys.stderr)
        return 1
    print(figures.table(measured))
    if asked.json:
        asked.json.write_text(json.dumps(figures.entries(measured), indent=2) + "\n")
    say(f"Measured in {time.monotonic() - begun_at:.0f} s; everything was stopped.")
    return 0


def say(sentence: str) -> None:
    """Tell on stderr what goes on: the table alone goes to stdout."""
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
