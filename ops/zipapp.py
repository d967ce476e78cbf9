"""`python -m ops.zipapp [DIRECTORY]`: writes the cluster client as one file, client-<hash>.pyz."""

from __future__ import annotations

import sys
from pathlib import Path

from workers.links import client_archive, errors


def main(directory: Path) -> int:
    """Write the archive into `directory` and print its path."""
    try:
        archive = client_archive.build()
    except errors.CannotConnect as problem:
        print(problem, file=sys.stderr)
        return 1
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / archive.name
    path.write_bytes(archive.data)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "build")))
