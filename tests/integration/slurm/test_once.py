"""Exactly one run of each job, whoever dies while sbatch is at work."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

from cluster_client.protocol import messages

from .conftest import (
    EngineProcess,
    new_tag,
    running_site,
    submit_until_answered,
    wait_until,
)


def ledger_line(site):
    return f"echo ran >>{site.ledger}"


def test_killed_around_sbatch_it_runs_once(slurm_server):
    numbers = (3, 4, 5, 6)
    with ThreadPoolExecutor(len(numbers)) as pool:
        list(pool.map(partial(run_once_killed_at, slurm_server), numbers))


def run_once_killed_at(server, number):
    """Kill the daemon at that fault point, and let another one finish what it began."""
    with running_site(server) as site, ExitStack() as cleanup:

        def start(**changes):
            made = EngineProcess(sys.executable, site.settings(scheduler=SOON, **changes))
            cleanup.callback(made.close)
            return made

        tag = new_tag()
        first = start(fault_point=f"daemon.submit.{number}:{site.directory / 'marker'}")
        message = site.submission(tag, ledger_line(site), limit_s=2.0)
        assert first.ask(message) is None, f"{number}: it should have been killed"
        second = start(generation=2)
        answer = submit_until_answered(second, tag, ledger_line(site), attempt=2, limit_s=2.0)
        assert second.wait(tag)["outcome"] == "completed", number
        assert site.ran() == ["ran"], number
        assert site.claim_of(tag) == answer["scheduler_job_id"], number


SOON = "tests.integration.slurm.soon.Soon"


def test_the_same_submission_is_answered_with_the_same_id(start_engine, site):
    engine, tag = start_engine(), new_tag()
    first = engine.submit(tag, ledger_line(site))
    assert engine.submit(tag, ledger_line(site), attempt=2) == first
    engine.wait(tag)
    assert engine.submit(tag, ledger_line(site), attempt=3) == first
    assert site.ran() == ["ran"]


def test_a_new_store_finds_the_job_in_the_queue(start_engine, site):
    first, tag = start_engine(), new_tag()
    answer = first.submit(tag, "#SBATCH --hold\n" + ledger_line(site))
    first.engine.stop()
    site.state.rename(site.directory / "lost")
    second = start_engine()
    again = second.submit(tag, "#SBATCH --hold\n" + ledger_line(site), attempt=2)
    assert again.scheduler_job_id == answer.scheduler_job_id
    assert second.engine.status()["commands"].get("submit", 0) == 0


def test_a_duplicate_ends_with_121_and_is_not_the_job(start_engine, site):
    engine, tag = start_engine(), new_tag()
    answer = engine.submit(tag, f"{ledger_line(site)}; echo precious; sleep 3")
    engine.wait(tag, "running")
    directory = site.jobs / tag
    options = ["--parsable", f"--job-name={tag}", f"--chdir={directory}", "--open-mode=append"]
    files = ["--output=stdout.log", "--error=stderr.log"]
    other = site.server.command(
        "sbatch", *options, *files, str(directory / ".hpc" / "wrapper")
    ).strip()
    wait_until(lambda: list((directory / ".hpc").glob("duplicate.*")))
    found = engine.engine._batch.look_up(tag, 0.0)
    assert (found.scheduler_job_id, found.others) == (answer.scheduler_job_id, (other,))
    assert engine.wait(tag)["outcome"] == "completed"
    assert site.ran() == ["ran"]
    assert (directory / "stdout.log").read_text() == "precious\n"
    codes = site.server.command("squeue", "-h", "-t", "all", f"--name={tag}", "-O", "exit_code")
    assert sorted(codes.split()) == ["0", str(121 << 8)]


def test_the_claim_of_a_duplicate_that_was_quicker_makes_it_the_job(start_engine, site):
    engine, tag = start_engine(), new_tag()
    first = engine.submit(tag, f"#SBATCH --hold\n{ledger_line(site)}; sleep 1")
    directory = site.jobs / tag
    options = ["--parsable", f"--job-name={tag}", f"--chdir={directory}", "--output=stdout.log"]
    wrapper = str(directory / ".hpc" / "wrapper")
    argv = ["sbatch", *options, "--priority=10", wrapper]
    other = site.server.command(*argv).strip()
    assert isinstance(first, messages.Submitted)
    site.server.command("scontrol", "release", other)
    wait_until((directory / ".hpc" / "claim").exists)
    site.server.command("scontrol", "release", first.scheduler_job_id)
    data = engine.wait(tag)
    assert data["outcome"] == "completed"
    moved = [d["scheduler_job_id"] for kind, d in engine.of(tag) if kind == "submitted"]
    assert moved == [first.scheduler_job_id, other]
    assert site.ran() == ["ran"]


def test_many_jobs_need_one_query_each_time(start_engine, site):
    engine = start_engine(submit_parallel=4)
    tags = [new_tag() for _ in range(40)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda tag: engine.submit(tag, ledger_line(site)), tags))
    assert {type(answer) for answer in answers} == {messages.Submitted}
    for tag in tags:
        assert engine.wait(tag, limit_s=90)["outcome"] == "completed"
    calls = engine.engine.status()["commands"]
    assert calls["queue"] < 2 * len(tags)
    assert calls["accounting"] <= calls["queue"] + len(tags)
    assert len(site.ran()) == len(tags)


def test_an_error_that_nobody_knows_keeps_the_job_waiting(start_engine, site):
    # As a site's job_submit plugin refuses: words of its own, and an error without a meaning.
    commands = site.directory / "bin"
    commands.mkdir()
    fake = commands / "sbatch"
    fake.write_text(
        "#!/bin/sh\necho 'sbatch: error: Buy hours first' >&2\n"
        "echo 'sbatch: error: Batch job submission failed: Unspecified error' >&2\nexit 1\n"
    )
    fake.chmod(0o755)
    engine, tag = start_engine(path_before=str(commands)), new_tag()
    answer = engine.submit(tag, ledger_line(site))
    assert (answer.reason, answer.transient) == ("unknown", True)
    assert "Buy hours first" in answer.message
    fake.unlink()
    assert isinstance(engine.submit(tag, ledger_line(site), attempt=2), messages.Submitted)
    assert engine.wait(tag)["outcome"] == "completed"
    assert site.ran() == ["ran"]
