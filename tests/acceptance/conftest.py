"""Fixtures of the tests with a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ops import services

if TYPE_CHECKING:
    from tests.stack import Stack


@pytest.fixture
def stack_to_visit(
    short_directory: Path,
    own_redis: services.Redis,
    postgres_url: str,
    django_db_blocker: Any,
) -> Iterator[Stack]:
    """A stack on PostgreSQL, whatever database this run is about: pages are the same on both."""
    from tests import stack as stacks  # needs Django's settings

    with (
        django_db_blocker.unblock(),
        stacks.running(short_directory, own_redis, postgres_url) as made,
    ):
        yield made
