"""The adapter: argv out, recorded text in."""

from __future__ import annotations

import pytest

from cluster_client import schedulers
from cluster_client.protocol import messages
from cluster_client.schedulers import (
    ENDED,
    QUEUED,
    RUNNING,
    UNKNOWN,
    Accepted,
    Cancellation,
    JobRef,
    Output,
    QueryFailed,
    Unclear,
)
from tests import recorded

TAG = "j" + "a" * 14


def tag(letter):
    return "j" + "a" * 13 + letter


def job(letter, number):
    return JobRef(tag(letter), str(number))


@pytest.fixture
def slurm():
    return schedulers.create("slurm", schedulers.Context("/jobs"))


def submit(script="#!/bin/bash\n", **changes):
    return messages.Submit(TAG, 1, script, "", **changes)


def command_of(slurm, **resources):
    asked = messages.Resources(**resources)
    job = schedulers.Submission(TAG, "/jobs/x", asked, {"SECRET": "s3"}, umask=0o027)
    return slurm.submit(job)


# Submission --------------------------------------------------------------------------------------


def test_sbatch_starts_where_and_as_the_job_shall(slurm):
    command = command_of(slurm)
    assert command.argv == (
        "sbatch", "--parsable", f"--job-name={TAG}", "--chdir=/jobs/x", "--output=stdout.log",
        "--error=stderr.log", "--open-mode=append", "/jobs/x/.hpc/wrapper",
    )  # fmt: skip
    assert command.environment == {"SECRET": "s3"}
    assert (command.directory, command.umask) == ("/jobs/x", 0o027)


def test_typed_resources_become_options(slurm):
    command = command_of(
        slurm, nodes=2, tasks=8, cpus_per_task=4, memory_mib=2000, walltime_s=61, partition="p,r",
        account="a", qos="q",
    )  # fmt: skip
    assert command.argv[7:-1] == (
        "--nodes=2", "--ntasks=8", "--cpus-per-task=4", "--mem=2000M", "--partition=p,r",
        "--account=a", "--qos=q", "--time=2",
    )  # fmt: skip


@pytest.mark.parametrize(("walltime_s", "minutes"), [(0, 1), (1, 1), (60, 1), (61, 2), (3600, 60)])
def test_time_limits_are_rounded_up_and_never_unlimited(slurm, walltime_s, minutes):
    assert f"--time={minutes}" in command_of(slurm, walltime_s=walltime_s).argv


@pytest.mark.parametrize(
    ("stdout", "answer"),
    [
        ("47\n", Accepted("47")),
        ("67108911;north\n", Accepted("67108911")),
        ("Welcome to the cluster\n47\n", Accepted("47")),
        ("", Unclear("sbatch printed no job id but ''")),
        ("47\n48\n", Unclear("sbatch printed no job id but '47\\n48'")),
    ],
)
def test_only_one_id_is_an_acceptance(slurm, stdout, answer):
    assert slurm.parse_submit(Output(0, stdout, "")) == answer


def test_a_recorded_acceptance(slurm):
    assert slurm.parse_submit(recorded.output("slurm/sbatch-accepted")) == Accepted("47")


def test_requeue_is_forbidden_unless_asked_for(slurm):
    assert slurm.header(submit()).split("\n")[0] == "#SBATCH --no-requeue"
    assert slurm.header(submit(may_requeue=True)).split("\n")[0] == "#SBATCH --requeue"
    ours, _, asked = slurm.header(submit("#!/bin/sh\n#SBATCH --requeue\n")).split("\n")
    assert (ours, asked) == ("#SBATCH --no-requeue", "#SBATCH --requeue")  # the last one counts


def test_variables_that_sbatch_obeys_are_refused_by_name(slurm):
    assert slurm.objection(submit(environment={"A": "1"})) == ""
    words = slurm.objection(submit(environment={"SBATCH_PARTITION": "x", "SLURM_CONF": "y"}))
    assert "SBATCH_PARTITION" in words
    assert "SLURM_CONF" in words


def test_a_retry_waits_for_what_the_controller_may_still_be_working_at(slurm):
    assert slurm.retry_at(1000.0, 30.0) == 1000.0 + 30.0 + 60.0
    slurm.learn([Output(0, "MessageTimeout = 100 sec\n", ""), Output(0, "", "")])
    assert slurm.retry_at(1000.0, 30.0) == 1000.0 + 30.0 + 300.0


# What it learns ----------------------------------------------------------------------------------


def test_the_survey_tells_version_partitions_and_accounting(slurm):
    config, partitions = (
        recorded.output("slurm/survey-scontrol"),
        recorded.output("slurm/survey-sinfo"),
    )
    slurm.learn([config, partitions])
    told = slurm.capabilities()
    assert slurm.version == "22.05.8"
    assert told.partitions == ("main", "debug")
    assert (told.has_accounting, told.has_arrays) == (True, True)
    assert set(told.resources) == set(messages.Resources().__dict__)


def test_a_slurm_without_accounting_is_not_asked_for_it(slurm):
    config = "AccountingStorageType = accounting_storage/none\n"
    slurm.learn([Output(0, config, ""), Output(0, "p\n", "")])
    assert slurm.capabilities().has_accounting is False
    assert slurm.accounting([job("a", 1)]) is None


def test_a_survey_that_fails_changes_nothing(slurm):
    with pytest.raises(QueryFailed):
        slurm.learn([recorded.output("slurm/squeue-controller-down"), Output(0, "p\n", "")])
    assert slurm.capabilities().has_accounting is True


# The queue ---------------------------------------------------------------------------------------

MIXED = [
    job("a", 29), job("b", 30), job("c", 31), job("d", 32), job("e", 33), job("f", 34),
    job("g", 35), job("h", 36), job("i", 37), job("k", 38), job("l", 39), job("n", 41),
    job("o", 42),
]  # fmt: skip


def test_one_query_asks_for_all_jobs_by_name(slurm):
    argv = slurm.queue([job("a", 1), job("b", 2)]).argv
    assert argv[:4] == ("squeue", "--me", "--noheader", "--states=all")
    assert argv[-1] == f"--name={tag('a')},{tag('b')}"
    assert not any(word.startswith("--name") for word in slurm.queue([job("a", 1)] * 6000).argv)


def test_what_the_queue_shows(slurm):
    seen = slurm.parse_queue(recorded.output("slurm/squeue-mixed"), MIXED)
    assert {
        letter: (s.state, s.outcome, s.exit_code, s.signal)
        for letter, s in ((t[-1], s) for t, s in seen.items())
    } == {
        "a": (ENDED, "completed", 0, None),
        "b": (ENDED, "failed", 3, None),
        "c": (ENDED, "failed", None, 15),
        "d": (ENDED, "failed", None, 9),
        "e": (RUNNING, "", None, None),
        "f": (ENDED, "cancelled", None, None),
        "g": (QUEUED, "", None, None),
        "h": (RUNNING, "", None, None),
        "i": (ENDED, "out_of_memory", None, None),
        "k": (ENDED, "failed", 1, None),
        "l": (QUEUED, "", None, None),
        "n": (ENDED, "node_fail", None, None),
        "o": (ENDED, "cancelled", None, None),
    }
    assert seen[tag("a")].ended_at == 1795371796.0
    assert seen[tag("g")].reason.startswith("DependencyNeverSatisfied: ")
    assert seen[tag("g")].needs_action
    assert seen[tag("l")].reason.startswith("BeginTime: ")
    assert (seen[tag("l")].run, seen[tag("l")].needs_action) == (1, False)
    assert {t[-1] for t, s in seen.items() if s.is_provisional} == {"b", "c", "d", "k"}


def test_a_job_of_another_id_with_our_tag_is_not_ours(slurm):
    assert slurm.parse_queue(recorded.output("slurm/squeue-mixed"), [job("a", 999)]) == {}


def test_a_requeue_that_is_completing_is_still_the_old_run(slurm):
    output = recorded.output("slurm/squeue-requeue-completing")
    seen = slurm.parse_queue(output, [job("l", 39)])[tag("l")]
    assert (seen.state, seen.run) == (RUNNING, 0)


def test_an_array_at_work_and_ended(slurm):
    at_work = slurm.parse_queue(recorded.output("slurm/squeue-array-at-work"), [job("h", 36)])
    assert at_work[tag("h")].state == RUNNING
    output = recorded.output("slurm/squeue-array-ended")
    number = output.stdout.split()[0]
    ended = slurm.parse_queue(output, [job("h", number)])[tag("h")]
    assert (ended.state, ended.outcome, ended.exit_code) == (ENDED, "failed", 3)


def test_a_time_limit(slurm):
    output = recorded.output("slurm/squeue-timeout")
    seen = slurm.parse_queue(output, [job("m", output.stdout.split()[0])])[tag("m")]
    assert (seen.state, seen.outcome, seen.words) == (ENDED, "wall_time_exceeded", "TIMEOUT")


def test_a_query_that_failed_or_makes_no_sense_says_nothing(slurm):
    for output in (
        recorded.output("slurm/squeue-controller-down"),
        Output(0, "12|N/A|RUNNING\n", ""),
        Output(0, f"12|N/A|RUNNING|x|0|N/A|None|{TAG}|\n", ""),
    ):
        with pytest.raises(QueryFailed):
            slurm.parse_queue(output, [JobRef(TAG, "12")])


def test_an_unknown_state_is_reported_not_raised(slurm):
    line = f"12|N/A|DREAMING|0|0|N/A|None|{TAG}|\n"
    seen = slurm.parse_queue(Output(0, line, ""), [JobRef(TAG, "12")])[TAG]
    assert (seen.state, seen.words) == (UNKNOWN, "DREAMING")


# Looking up --------------------------------------------------------------------------------------


def test_it_is_looked_for_in_queue_and_accounting(slurm):
    queue, accounting = slurm.find(TAG, 1795371796.0)
    assert queue.argv[:2] == ("squeue", "--me")
    assert f"--name={TAG}" in queue.argv
    assert "--starttime=2026-11-22T18:13:16" in accounting.argv
    assert "--starttime=now-60days" in slurm.find(TAG, 0.0)[1].argv


def test_ids_of_both_places_are_told_once(slurm):
    found = [recorded.output("slurm/find-squeue"), recorded.output("slurm/find-sacct")]
    assert slurm.parse_find(TAG, found) == ("33", "36")
    nothing = recorded.output("slurm/find-sacct-nothing")
    assert slurm.parse_find(TAG, [nothing, nothing]) == ()


def test_without_accounting_the_queue_alone_is_looked_in(slurm):
    outputs = [recorded.output("slurm/find-squeue"), recorded.output("slurm/sacct-no-accounting")]
    assert slurm.parse_find(TAG, outputs) == ("33",)


@pytest.mark.parametrize("name", ["sacct-slurmdbd-down", "squeue-controller-down"])
def test_a_place_that_can_not_be_looked_in_is_no_empty_place(slurm, name):
    with pytest.raises(QueryFailed):
        slurm.parse_find(TAG, [Output(0, "", ""), recorded.output(f"slurm/{name}")])


def test_a_claim_names_the_cluster_and_the_job(slurm):
    assert slurm.claimed_id("north:47") == "47"
    assert slurm.claimed_id(":47") == "47"
    for text in ("47", "north:", "north:47 ", "a b:47", "north:47\n", "local:1.2.a", ""):
        assert slurm.claimed_id(text) == ""


# Cancelling --------------------------------------------------------------------------------------


def test_a_cancel_names_tag_and_id(slurm):
    assert slurm.cancel(JobRef(TAG, "47"), False).argv == ("scancel", f"--name={TAG}", "47")


def test_what_scancel_says(slurm):
    alive = recorded.output("slurm/scancel-alive")
    assert slurm.parse_cancel(alive) == Cancellation(was_alive=True)
    ended = recorded.output("slurm/scancel-ended")
    assert slurm.parse_cancel(ended) == Cancellation(was_alive=False)
    with pytest.raises(QueryFailed):
        slurm.parse_cancel(recorded.output("slurm/scancel-controller-down"))
