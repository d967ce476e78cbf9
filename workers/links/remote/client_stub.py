#!/usr/bin/env python3
"""The cluster client, as its server has put it here: runs the archive that `current` names.

HPC-CLIENT-STUB 1
"""

import importlib
import os
import sys

OLDEST = (3, 9)


def absent(why: str) -> str:
    """What the server and people are told, when there is nothing to run."""
    sys.stdout.write('HPC-BRIDGE 1 {"status": "no_client"}\n')
    sys.stdout.flush()
    return f"client.py: {why}. Bootstrap the cluster again."


def main() -> "int | str":
    here = os.path.dirname(os.path.abspath(__file__))
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        return f"client.py: Python 3.9 or newer is needed; this is {found} ({sys.executable})."
    try:
        with open(os.path.join(here, "current")) as file:
            name = file.readline().strip()
    except OSError as error:
        return absent(f"which client to run can't be read: {error}")
    archive = os.path.join(here, name)
    if not os.path.isfile(archive):
        return absent(f"{archive} is missing")
    sys.path[:] = [archive, *(path for path in sys.path if os.path.abspath(path) != here)]
    client = importlib.import_module("cluster_client.client")
    status: int = client.main(sys.argv[1:])
    return status


if __name__ == "__main__":
    sys.exit(main())
