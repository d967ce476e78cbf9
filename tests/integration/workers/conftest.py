"""Stacks for the tests of workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops import services
from tests import stack as stacks


@pytest.fixture
def stack(
    short_directory: Path, own_redis: services.Redis, database_url: str, django_db_blocker: Any
) -> Iterator[stacks.Stack]:
    """A prepared stack with a Redis of its own; no worker runs yet."""
    with (
        django_db_blocker.unblock(),
        stacks.running(short_directory, own_redis, database_url) as made,
    ):
        yield made
