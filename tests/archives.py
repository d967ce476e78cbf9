"""Archives of the cluster client that differ from the one of this tree."""

from __future__ import annotations

import io
import zipfile

from workers.links import client_archive


def doctored(
    archive: client_archive.Archive, *changes: tuple[str, str, str]
) -> client_archive.Archive:
    """The archive with other words in some of its files."""
    with zipfile.ZipFile(io.BytesIO(archive.data)) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    for name, before, after in changes:
        assert files[name].count(before.encode()) == 1, (name, before)
        files[name] = files[name].replace(before.encode(), after.encode())
    return client_archive.Archive(client_archive._zipped(files))
