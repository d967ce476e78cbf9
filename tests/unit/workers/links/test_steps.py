"""Steps are recorded whatever comes of them."""

from __future__ import annotations

import pytest

from workers.links import errors, steps


def test_steps_are_recorded_with_outcome_and_time() -> None:
    seen: list[steps.Step] = []
    with steps.step(seen.append, "One") as note:
        note.detail = "Fine."
    with steps.step(seen.append, "Two") as note:
        note.skip("Not needed.")
    with (
        pytest.raises(errors.CannotConnect),
        steps.step(seen.append, "Three"),
    ):
        raise errors.CannotConnect("broken", "It broke.")
    assert [(each.name, each.outcome, each.detail) for each in seen] == [
        ("One", steps.DONE, "Fine."),
        ("Two", steps.SKIPPED, "Not needed."),
        ("Three", steps.FAILED, "It broke."),
    ]
    assert all(0 <= each.took_s < 10 for each in seen)
