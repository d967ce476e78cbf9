"""What clients tell: understood when it makes sense, refused when it does not."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import errors
from controller.lifecycle import Event
from controller.services import outbox, reports


@pytest.mark.parametrize(
    ("kind", "data", "event", "updates"),
    [
        ("submitted", {"scheduler_job_id": "7"}, Event.ACCEPT, {"scheduler_job_id": "7"}),
        ("queued", {"reason": "Priority"}, Event.QUEUE, {}),
        ("running", {}, Event.START, {}),
        (
            "ended",
            {"outcome": "completed", "exit_code": 0},
            Event.COMPLETE,
            {"exit_code": 0, "signal": None},
        ),
        (
            "ended",
            {"outcome": "failed", "signal": 9},
            Event.FAIL,
            {"exit_code": None, "signal": 9},
        ),
        (
            "accounting",
            {"elapsed_s": 2, "cpu_s": 1.5},
            Event.ACCOUNT,
            {"elapsed_s": 2, "cpu_s": 1.5},
        ),
        ("rejected", {"reason": "invalid_request", "message": "no"}, Event.REJECT, {}),
    ],
)
def test_each_kind_becomes_its_event(
    kind: str, data: dict[str, Any], event: Event, updates: dict[str, Any]
) -> None:
    report = reports.read(kind, 0, 1.0, data)
    assert (report.event, report.updates) == (event, updates)


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("protein folding", "protein folding"),
        (" a\n\x1b[31mb\0 ", "a  [31mb"),
        ("x" * 300, "x" * 200),
        ("\ud800", ""),
        (7, ""),
        (None, ""),
    ],
)
def test_the_name_that_the_script_gives_is_one_printable_line(told: Any, name: str) -> None:
    report = reports.read("submitted", 0, 1.0, {"scheduler_job_id": "7", "name": told})
    assert (report.name, report.updates) == (name, {"scheduler_job_id": "7"})


def test_every_outcome_of_the_protocol_has_its_event() -> None:
    assert set(reports.OUTCOMES) == {
        "completed", "failed", "cancelled", "wall_time_exceeded", "out_of_memory", "node_fail",
        "preempted", "refused",
    }  # fmt: skip


def test_a_transient_refusal_gives_the_job_back_with_a_reason() -> None:
    data = {"reason": "limits", "message": "QOSMaxJobs", "transient": True}
    report = reports.read("rejected", 0, 1.0, data)
    assert report.event is Event.RELEASE
    assert (report.blocked_reason, report.cause) == ("limits", "QOSMaxJobs")
    assert report.retry_s > 0


def test_blocked_is_a_reason_beside_the_status() -> None:
    report = reports.read("blocked", 0, 1.0, {"reason": "no_evidence", "message": "gone"})
    assert report.event is None
    assert report.blocked_reason == "no_evidence"


@pytest.mark.parametrize(
    ("kind", "run", "data"),
    [
        ("exploded", 0, {}),
        (["ended"], 0, {}),
        ("running", -1, {}),
        ("running", 2**40, {}),
        ("running", True, {}),
        ("running", "1", {}),
        ("running", 0, []),
        ("submitted", 0, {}),
        ("submitted", 0, {"scheduler_job_id": 7}),
        ("submitted", 0, {"scheduler_job_id": "7" * 201}),
        ("submitted", 0, {"scheduler_job_id": "7\n8"}),
        ("ended", 0, {"outcome": "vanished"}),
        ("ended", 0, {"outcome": ["completed"]}),
        ("ended", 0, {"outcome": "completed", "exit_code": "0"}),
        ("ended", 0, {"outcome": "completed", "exit_code": 2**31}),
        ("ended", 0, {"outcome": "completed", "reason": 5}),
        ("accounting", 0, {"elapsed_s": float("nan")}),
        ("accounting", 0, {"elapsed_s": -1}),
        ("accounting", 0, {"cpu_s": "1"}),
        ("accounting", 0, {"cpu_s": 10**400}),
        ("rejected", 0, {"reason": "Two Words"}),
        ("blocked", 0, {}),
    ],
)
def test_nonsense_is_refused(kind: Any, run: Any, data: Any) -> None:
    with pytest.raises(errors.Invalid):
        reports.read(kind, run, 1.0, data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        "scheduler_job_id",
        "name",
        "outcome",
        "exit_code",
        "signal",
        "reason",
        "message",
        "elapsed_s",
        "transient",
    ]
)


@given(
    kind=st.sampled_from(sorted(reports._READERS)) | st.text(max_size=10),
    run=st.integers() | JSON,
    at=st.floats() | st.integers() | JSON,
    data=st.dictionaries(FIELDS, JSON | st.sampled_from(sorted(reports.OUTCOMES)), max_size=8)
    | JSON,
)
def test_whatever_is_told_is_understood_or_refused_and_fits_the_database(
    kind: str, run: Any, at: Any, data: Any
) -> None:
    try:
        report = reports.read(kind, run, at, data)
    except errors.Invalid as error:
        assert "\0" not in str(error)
        str(error).encode()
        return
    kept = json.dumps([report.cause, report.data, report.updates], allow_nan=False)
    assert "\\u0000" not in kept
    assert len(kept) < 20_000
    report.cause.encode()


def test_texts_are_cleaned_and_cut() -> None:
    report = reports.read("queued", 0, 1.0, {"reason": "a\0b\ud800" + "x" * 9000})
    assert report.cause.startswith("a\ufffdb?")
    assert len(report.cause) == reports.TEXT_LIMIT


@pytest.mark.parametrize(
    "at", [0, -1, float("nan"), float("inf"), 1e300, 10**400, "now", None, True]
)
def test_a_bad_clock_ends_no_job(at: Any) -> None:
    assert reports.read("running", 0, at, {}).happened_at is None


def test_a_time_is_told_in_utc() -> None:
    assert reports.read("running", 0, 86400, {}).happened_at == datetime(1970, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(("state", "event"), [("queued", Event.QUEUE), ("running", Event.START)])
def test_a_compared_state_tells_the_id_too(state: str, event: Event) -> None:
    report = reports.read_state(outbox.ClusterJobState("j", state, "12", run=1))
    assert report is not None
    assert (report.event, report.run) == (event, 1)
    assert report.updates["scheduler_job_id"] == "12"


@pytest.mark.parametrize("state", ["submitting", "rejected", "something new"])
def test_a_state_that_tells_nothing_certain_changes_nothing(state: str) -> None:
    assert reports.read_state(outbox.ClusterJobState("j", state)) is None
