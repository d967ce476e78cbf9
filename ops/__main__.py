"""`python -m ops demo` and `python -m ops run`."""

from __future__ import annotations

import importlib
import sys

from ops import errors, interruption, orphans

COMMANDS = ("demo", "run")


def main(arguments: list[str]) -> int:
    """Run one of the commands; return the exit status."""
    if len(arguments) != 1 or arguments[0] not in COMMANDS:
        print("Usage: python -m ops demo | run", file=sys.stderr)
        return 2
    asked = interruption.Interruption(when_awake=orphans.collect)
    asked.install()
    orphans.adopt()
    try:
        # Imported only now, so that a signal is ours from the first moment on.
        command = importlib.import_module(f"ops.{arguments[0]}")
        status: int = command.main(asked)
        return status
    except interruption.Stopped as stopped:
        print(stopped, file=sys.stderr)
        return 128 + stopped.number
    except errors.OpsError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        asked.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
