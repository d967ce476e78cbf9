"""The log: bounded, unforgeable, and no reason to die."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_client import errors, logs


@pytest.fixture
def handler(tmp_path: Path) -> Iterator[logs.PatientHandler]:
    one = logs.PatientHandler(str(tmp_path / "x.log"), 2000, 3)
    yield one
    one.close()


def record(event: str, **extra: object) -> logging.LogRecord:
    fields = {"name": "cluster_client.x", "levelname": "INFO", "levelno": 20, "msg": event}
    return logging.makeLogRecord({**fields, **extra})


def test_a_line_tells_the_event_and_its_data(handler: logs.PatientHandler, tmp_path: Path) -> None:
    handler.emit(record("job_ended", tag="jabc", code=3))
    line = (tmp_path / "x.log").read_text()
    assert line.endswith(' INFO cluster_client.x job_ended tag="jabc" code=3\n')


def test_no_value_can_forge_a_line(handler: logs.PatientHandler, tmp_path: Path) -> None:
    handler.emit(record("one\ntwo", why="a\n2026-01-01 ERROR forged\x1b[2J"))
    assert len((tmp_path / "x.log").read_text().splitlines()) == 1
    assert "\x1b" not in (tmp_path / "x.log").read_text()


def test_files_are_put_aside_and_their_number_is_bounded(
    handler: logs.PatientHandler, tmp_path: Path
) -> None:
    for number in range(500):
        handler.emit(record("something_happened", number=number))
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"x.log", "x.log.1", "x.log.2"}
    assert all(size <= 2000 for size in sizes.values())
    assert "number=499" in (tmp_path / "x.log").read_text()


def test_the_log_is_private(handler: logs.PatientHandler, tmp_path: Path) -> None:
    handler.emit(record("x"))
    assert (tmp_path / "x.log").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_is_survived_and_the_loss_is_told(tmp_path: Path) -> None:
    # /dev/full is the disk: each write to it fails with ENOSPC.
    (tmp_path / "x.log").symlink_to("/dev/full")
    handler = logs.PatientHandler(str(tmp_path / "x.log"), 1 << 20, 3)
    for number in range(3):
        handler.emit(record("lost", number=number))
    assert handler.lost == 3
    (tmp_path / "x.log").unlink()
    handler.emit(record("kept"))
    handler.close()
    text = (tmp_path / "x.log").read_text()
    assert "kept" in text
    assert "log_lines_lost count=3" in text


@pytest.fixture
def quiet_root() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for handler in set(root.handlers) - set(before):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.captureWarnings(False)


def test_a_directory_that_can_not_be_made_stops_the_start(tmp_path: Path, quiet_root: None) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.SettingsError, match="HPC_LOG_DIRECTORY"):
        logs.configure(str(tmp_path / "file" / "log"), "key", 1 << 20, 3, "INFO")


def test_the_directory_is_made_private(tmp_path: Path, quiet_root: None) -> None:
    logs.configure(str(tmp_path / "a" / "log"), "key", 1 << 20, 3, "INFO")
    logging.getLogger("cluster_client.test").info("event")
    assert [path.name for path in (tmp_path / "a" / "log").iterdir()] == ["key.log"]
    assert (tmp_path / "a" / "log").stat().st_mode & 0o777 == 0o700
