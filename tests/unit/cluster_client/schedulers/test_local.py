from __future__ import annotations

import json

import pytest

from cluster_client import schedulers
from cluster_client.protocol import messages
from cluster_client.schedulers import Accepted, JobRef, Output, Refusal, Sighting, Unclear

TAG = "j" + "a" * 14
ID = "local:12.345.c5f8d1c2-c9ef-450e-b2a4-84571828fdbb"


@pytest.fixture
def local():
    return schedulers.create("local", schedulers.Context("/jobs", program=("client",)))


def submit(**resources):
    return messages.Submit(TAG, 1, "", "", resources=messages.Resources(**resources))


def test_resources_are_refused_by_name(local):
    assert local.objection(submit()) == ""
    assert "walltime_s, partition" in local.objection(submit(walltime_s=1, partition="p"))


def test_the_environment_goes_by_stdin_and_never_by_argv(local):
    job = schedulers.Submission(TAG, "/jobs/x", messages.Resources(), {"SECRET": "s3"}, 0o027)
    command = local.submit(job)
    assert command.argv == ("client", "local", "submit", TAG)
    assert json.loads(command.stdin)["environment"] == {"SECRET": "s3"}


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        (Output(0, f"{ID}\n", ""), Accepted(ID)),
        (Output(3, "", "no fork"), Refusal("unavailable", "no fork", transient=True)),
        (Output(4, "", "too long"), Refusal("invalid_request", "too long", transient=False)),
        (Output(0, "local:1\n", "odd"), Unclear("odd")),
        (Output(0, "", ""), Unclear("local submit ended with 0")),
        (Output(0, f"{ID}\nmore\n", "x"), Unclear("x")),
        (Output(-9, "", ""), Unclear("local submit ended with -9")),
        (Output(1, f"{ID}\n", "boom"), Unclear("boom")),
    ],
)
def test_only_a_clear_answer_of_submit_is_an_answer(local, output, answer):
    assert local.parse_submit(output) == answer


def test_one_query_asks_for_all_jobs(local):
    command = local.queue([JobRef(TAG, ID), JobRef("other", "id")])
    assert command.argv == ("client", "local", "queue", "/jobs")
    assert command.stdin == f"{TAG} {ID}\nother id\n"


def queue_of(local, *lines, returncode=0, end=True):
    text = "".join(f"{line}\n" for line in (*lines, *(["end"] if end else [])))
    return local.parse_queue(Output(returncode, text, ""), [])


def test_the_states_of_queue(local):
    seen = queue_of(
        local,
        "a running {}",
        'b ended {"exit": 3, "end": 5.5}',
        'c refused {"exit": 122, "words": "no interpreter", "end": 6}',
        "d gone {}",
        'e unknown {"words": "it runs on n7"}',
    )
    assert seen["a"] == Sighting("running", words="running")
    assert (seen["b"].state, seen["b"].exit_code, seen["b"].ended_at) == ("ended", 3, 5.5)
    assert (seen["c"].outcome, seen["c"].reason) == ("refused", "no interpreter")
    assert (seen["d"].state, seen["d"].outcome) == ("ended", "failed")
    assert "vanished" in seen["d"].reason
    assert (seen["e"].state, seen["e"].reason) == ("unknown", "it runs on n7")


def test_an_unknown_state_is_reported_not_raised(local):
    assert queue_of(local, 'a melting {"words": "!"}')["a"] == Sighting(
        "unknown", words="melting", reason="!"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"lines": ["a running {}"], "end": False},
        {"lines": [], "returncode": 1},
        {"lines": ["a ended nonsense"]},
        {"lines": ["a"]},
    ],
)
def test_a_text_that_can_not_be_trusted_says_nothing_about_any_job(local, arguments):
    lines = arguments.pop("lines")
    with pytest.raises(schedulers.QueryFailed):
        queue_of(local, *lines, **arguments)


@pytest.mark.parametrize("record", ["{}", '{"exit": "x"}', '{"exit": 1e999}', '{"exit": null}'])
def test_a_spoilt_record_leaves_its_own_job_unknown_and_the_others_known(local, record):
    seen = queue_of(local, f"a ended {record}", "b running {}")
    assert (seen["a"].state, seen["b"].state) == ("unknown", "running")


@pytest.mark.parametrize("text", ["", "insurance", "local:1.2.", "local:x.2." + "a" * 36, ID + "x"])
def test_a_file_called_claim_that_is_not_ours_claims_nothing(local, text):
    assert local.claimed_id(text) == ""
    assert local.claimed_id(ID) == ID


def test_find_gives_every_match_once(local):
    outputs = [Output(0, f"{ID}\nlocal:2.2.x\n{ID}\nend\n", "")]
    assert local.parse_find(TAG, outputs) == (ID, "local:2.2.x")
    with pytest.raises(schedulers.QueryFailed):
        local.parse_find(TAG, [Output(0, f"{ID}\n", "")])


def test_cancel_names_tag_and_id_and_says_whether_somebody_heard(local):
    argv = local.cancel(JobRef(TAG, ID), is_forced=False).argv
    assert argv[2:] == ("cancel", "/jobs", TAG, ID)
    assert local.cancel(JobRef(TAG, ID), is_forced=True).argv[2] == "kill"
    assert local.parse_cancel(Output(0, "signalled\nend\n", "")).was_alive
    assert not local.parse_cancel(Output(0, "gone\nend\n", "")).was_alive
    with pytest.raises(schedulers.QueryFailed):
        local.parse_cancel(Output(0, "end\n", ""))


@pytest.mark.parametrize(
    "name", ["", "nonsense", "no.such:Thing", "json:JSONDecoder2", "os:getcwd"]
)
def test_a_class_that_can_not_be_used_is_named(name):
    with pytest.raises(LookupError):
        schedulers.create(name, schedulers.Context("/jobs"))


def test_a_class_path_makes_an_adapter():
    made = schedulers.create("cluster_client.schedulers.local:Local", schedulers.Context("/jobs"))
    assert made.name == "local"
