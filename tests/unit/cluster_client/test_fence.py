from __future__ import annotations

import pytest

from cluster_client import errors
from cluster_client.fence import Fence, Holder
from cluster_client.filesystem import Filesystem


@pytest.fixture
def fence(tmp_path):
    return lambda generation: Fence(Filesystem(), str(tmp_path), generation)


def test_a_newer_generation_ends_the_older_one(fence):
    old, new = fence(1), fence(2)
    old.take()
    old.check()
    new.take()
    new.check()
    with pytest.raises(errors.Fenced) as caught:
        old.check()
    assert caught.value.generation == 2
    with pytest.raises(errors.Fenced):
        old.take()
    new.check()


def test_of_two_with_one_generation_the_later_goes_on(fence):
    first, second = fence(1), fence(1)
    first.take()
    second.take()
    second.check()
    with pytest.raises(errors.Fenced):
        first.check()


def test_a_fence_that_is_gone_ends_the_daemon(fence, tmp_path):
    it = fence(1)
    it.take()
    (tmp_path / "fence").unlink()
    assert it.read() == Holder()
    with pytest.raises(errors.Fenced, match="gone"):
        it.check()


def test_a_fence_that_can_not_be_read_is_neither_ours_nor_theirs(fence, tmp_path):
    it = fence(1)
    it.take()
    (tmp_path / "fence").unlink()
    (tmp_path / "fence").mkdir()
    with pytest.raises(errors.NotStored):
        it.check()


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"generation": "x"}'])
def test_a_spoilt_fence_is_told(fence, tmp_path, text):
    (tmp_path / "fence").write_text(text)
    with pytest.raises(errors.StoreDamaged):
        fence(1).take()
