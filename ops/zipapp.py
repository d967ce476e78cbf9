"""`python -m ops.zipapp [DIRECTORY]`: writes the cluster client, ready to be copied to a cluster.

The same three files that a bootstrap puts there: client-<hash>.pyz, `current`, which names it, and
client.py, which runs it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from workers.links import client_archive, errors, upload


def main(directory: Path) -> int:
    """Write the client into `directory` and print the archive's path."""
    try:
        archive = client_archive.build()
    except errors.CannotConnect as problem:
        print(problem, file=sys.stderr)
        return 1
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / archive.name
    path.write_bytes(archive.data)
    (directory / "current").write_text(archive.name + "\n")
    (directory / "client.py").write_text(upload.stub())
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/client")))
