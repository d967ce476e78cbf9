"""Which client this is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from cluster_client import build


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert project["project"]["version"] == build.VERSION


def test_the_hash_is_short_and_does_not_change_by_itself() -> None:
    assert re.fullmatch("[0-9a-f]{16}", build.build_hash())
    assert build.build_hash() == build.build_hash()
