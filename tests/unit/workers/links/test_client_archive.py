"""The client as one file."""

from __future__ import annotations

import io
import zipfile

from workers.links import client_archive


def test_archive_is_named_by_its_bytes_and_always_the_same() -> None:
    archive = client_archive.build()
    assert client_archive.build() == archive
    assert archive.name == f"client-{archive.sha256[:16]}.pyz"
    assert "PK" not in repr(archive)


def test_archive_holds_the_client_and_what_it_needs_and_no_more() -> None:
    with zipfile.ZipFile(io.BytesIO(client_archive.build().data)) as archive:
        names = archive.namelist()
        assert {entry.date_time for entry in archive.infolist()} == {client_archive.EARLIEST}
    assert names == sorted(names)
    for name in ("__main__.py", "cluster_client/wrapper.sh", "websockets/sync/server.py"):
        assert name in names
    for part in ("settings/", "__pycache__", "legacy", ".so", ".pyi", "venv/"):
        assert not [name for name in names if part in name]
