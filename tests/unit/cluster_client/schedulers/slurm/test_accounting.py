"""What sacct tells of ends and usage, from recordings."""

from __future__ import annotations

import pytest

from cluster_client import evidence, schedulers
from cluster_client.schedulers import ABSENT, ENDED, JobRef, Output, QueryFailed, Sighting, Usage
from cluster_client.schedulers.slurm import accounting
from tests import recorded

from .test_slurm import MIXED, job, tag


def told_of(name, jobs):
    return accounting.parse(recorded.output(f"slurm/{name}"), jobs)


def test_only_jobs_that_have_ended_are_told():
    told = told_of("sacct-mixed", MIXED)
    assert {t[-1]: s.outcome for t, s in told.items()} == {
        "a": "completed",
        "b": "failed",
        "c": "failed",
        "d": "failed",
        "f": "cancelled",
        "i": "out_of_memory",
        "k": "out_of_memory",  # its step
        "n": "node_fail",
        "o": "cancelled",
    }
    assert told[tag("f")].reason == "cancelled by uid 0"
    assert told[tag("n")].usage == Usage(elapsed_s=2.0, cpu_s=0.0, max_memory_mib=None)


def test_usage_is_that_of_the_job_with_the_memory_of_its_largest_step():
    usage = told_of("sacct-mixed", [job("k", 38)])[tag("k")].usage
    assert usage == Usage(elapsed_s=1.0, cpu_s=0.089, max_memory_mib=2.742)


def test_an_array_is_summed_up():
    told = told_of("sacct-mixed-later", [job("h", 36)])[tag("h")]
    assert (told.outcome, told.exit_code, told.is_array) == ("failed", 3, True)
    assert told.usage is not None
    assert told.usage.elapsed_s == 7.0  # from the first start to the last end


def test_an_array_of_which_a_task_still_runs_has_not_ended():
    assert told_of("sacct-mixed", [job("h", 36)]) == {}


def test_a_time_limit():
    output = recorded.output("slurm/sacct-timeout")
    number = output.stdout.partition("|")[0]
    told = accounting.parse(output, [job("m", number)])[tag("m")]
    assert (told.outcome, told.words) == ("wall_time_exceeded", "TIMEOUT")


def test_a_row_whose_name_is_still_to_come_is_ours():
    output = recorded.output("slurm/sacct-name-to-come")
    assert "|allocation" in output.stdout
    number = output.stdout.partition("|")[0]
    assert accounting.parse(output, [job("q", number)])[tag("q")].outcome == "failed"


def test_a_row_of_another_name_is_not_ours():
    assert told_of("sacct-mixed", [JobRef(tag("z"), "29")]) == {}


def test_no_accounting_is_an_empty_one_and_one_that_is_down_is_no_answer():
    assert told_of("sacct-no-accounting", [job("a", 1)]) == {}
    assert accounting.is_disabled(recorded.output("slurm/sacct-no-accounting"))
    with pytest.raises(QueryFailed, match="Connection refused"):
        told_of("sacct-slurmdbd-down", [job("a", 1)])
    with pytest.raises(QueryFailed, match="sacct printed"):
        accounting.parse(Output(0, "29|COMPLETED\n", ""), [job("a", 29)])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:00.075", 0.075), ("01:02", 62.0), ("01:00:00", 3600.0), ("2-00:00:01", 172801.0)],
)
def test_times_of_processors(text, seconds):
    row = f"5|COMPLETED|0:0|2026-11-22T18:00:00|2026-11-22T18:00:01|1|{text}|1.5G|{tag('a')}\n"
    usage = accounting.parse(Output(0, row, ""), [job("a", 5)])[tag("a")].usage
    assert usage == Usage(1.0, seconds, 1536.0)


def test_while_a_step_has_not_ended_its_usage_is_not_told():
    rows = (
        f"5|FAILED|1:0|2026-11-22T18:00:00|2026-11-22T18:00:01|1|00:00|1M|{tag('a')}\n"
        "5.0|RUNNING|0:0|2026-11-22T18:00:00|Unknown|1|00:00||srun\n"
    )
    told = accounting.parse(Output(0, rows, ""), [job("a", 5)])[tag("a")]
    assert (told.usage, told.is_provisional) == (None, True)


def test_exit_codes_are_made_exact_by_the_queue_or_by_the_record():
    told = told_of("sacct-mixed", [job("c", 31)])[tag("c")]
    assert (told.exit_code, told.signal, told.is_exact) == (15, None, False)
    queued = Sighting(ENDED, outcome="failed", signal=15, knows_cancel=True)
    assert evidence.with_accounting(queued, told).signal == 15
    absent = evidence.with_accounting(Sighting(ABSENT), told)
    exact = evidence.with_record(absent, schedulers.sighting_of_exit(143, 0.0, ""), "")
    assert (exact.exit_code, exact.signal, exact.is_exact) == (None, 15, True)
    other = evidence.with_record(absent, schedulers.sighting_of_exit(7, 0.0, ""), "")
    assert other.exit_code == 15
