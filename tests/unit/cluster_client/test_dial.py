"""What `dial` makes of a registry."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cluster_client import dial, host


def write(directory: Path, **changes: Any) -> None:
    entry: dict[str, Any] = {
        "generation": 2,
        "host": host.host_name(),
        "pid": os.getpid(),
        "starttime": host.start_time(os.getpid()),
        "boot_id": host.boot_id(),
        "socket": str(directory / "socket"),
        "started_at": 1.0,
        "build_hash": "abc",
        "versions": [1],
        **changes,
    }
    (directory / "registry").write_text(json.dumps(entry))


def test_without_a_registry_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "last_death").write_text("stopped by SIGTERM\n")
    found = dial.find(str(tmp_path))
    assert (found.status, found.last_death) == ("none", "stopped by SIGTERM")


def test_without_a_state_directory_there_is_none(tmp_path: Path) -> None:
    assert dial.find(str(tmp_path / "nothing")).status == "none"


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"pid": "x"}', "\xff"])
def test_a_damaged_registry_is_stale(tmp_path: Path, text: str) -> None:
    (tmp_path / "registry").write_text(text)
    assert dial.find(str(tmp_path)).status == "stale"


@pytest.mark.parametrize(
    "changes", [{"pid": 2**22 + 1}, {"starttime": 1}, {"boot_id": "another boot"}]
)
def test_a_dead_process_is_stale_and_its_death_is_told(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    write(tmp_path, **changes)
    (tmp_path / "last_death").write_text("of the daemon before\n")
    found = dial.find(str(tmp_path))
    assert found.status == "stale"
    assert "killed, or the node rebooted" in found.last_death


def test_a_daemon_on_another_host_is_elsewhere(tmp_path: Path) -> None:
    write(tmp_path, host="login2")
    found = dial.find(str(tmp_path))
    assert (found.status, found.host) == ("elsewhere", "login2")


def test_no_common_version_is_incompatible(tmp_path: Path) -> None:
    write(tmp_path, versions=[1, 2])
    found = dial.find(str(tmp_path), (3,))
    assert (found.status, found.versions) == ("incompatible", (1, 2))


def test_a_socket_that_is_not_there_is_stale(tmp_path: Path) -> None:
    write(tmp_path)
    tmp_path.chmod(0o700)
    assert dial.find(str(tmp_path)).status == "stale"


def test_a_socket_in_a_directory_that_others_can_enter_is_not_trusted(tmp_path: Path) -> None:
    write(tmp_path)
    tmp_path.chmod(0o755)
    found = dial.find(str(tmp_path))
    assert found.status == "stale"
    assert "not a private directory" in found.detail
