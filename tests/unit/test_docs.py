"""The guides name only what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cluster_client import definitions
from controller import conf

CHECKOUT = Path(__file__).parents[2]
GUIDES = sorted((CHECKOUT / "docs").glob("*.md"))
SETTINGS = conf.FIELDS.keys() | conf.OF_THE_PROJECT | set(definitions.NAMES)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_settings_that_a_guide_names_exist(guide: Path) -> None:
    text = re.sub(r"environ\[.*?\]", "", guide.read_text())  # a portal's own
    named = set(re.findall(r"\bHPC_[A-Z0-9_]+\b", text))
    assert named <= SETTINGS


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_links_of_a_guide_lead_somewhere(guide: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", guide.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (guide.parent / target).exists()] == []
