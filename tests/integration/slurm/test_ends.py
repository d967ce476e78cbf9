"""Every end that Slurm can be brought to, told by the engine."""

from __future__ import annotations

import itertools

import pytest

from cluster_client.protocol import messages

from .conftest import new_tag, wait_until

ATTEMPTS = itertools.count(1)


def kinds(recorder, tag):
    return [kind for kind, _ in recorder.of(tag)]


def test_a_job_runs_in_its_directory_and_ends_completed(start_engine, site):
    engine, tag = start_engine(), new_tag()
    answer = engine.submit(tag, "pwd; echo oops >&2; sleep 1")
    assert isinstance(answer, messages.Submitted)
    assert engine.wait(tag)["outcome"] == "completed"
    accounting = engine.wait(tag, "accounting")
    assert accounting["elapsed_s"] >= 1
    assert accounting["max_memory_mib"] > 0
    assert accounting["cpu_s"] >= 0
    told = [kind for kind in kinds(engine, tag) if kind != "queued"]
    assert told == ["submitted", "running", "ended", "accounting"]
    directory = site.jobs / tag
    assert (directory / "stdout.log").read_text() == f"{directory}\n"
    assert (directory / "stderr.log").read_text() == "oops\n"
    cluster = site.server.layout.cluster
    assert (directory / ".hpc" / "claim").read_text().split()[
        0
    ] == f"{cluster}:{answer.scheduler_job_id}"
    wait_until(lambda: not list(site.hints.iterdir()), what="the removal of all hints")


def test_how_it_ended_is_told_to_the_letter(start_engine):
    ends = {
        "exit 3": (3, None, "failed"),
        "exit 255": (255, None, "failed"),
        "kill -KILL $$": (None, 9, "failed"),
        "kill -SEGV $$": (None, 11, "failed"),
        "sleep 0.2; kill -TERM $$": (None, 15, "failed"),
        "#!/usr/bin/python3\nraise SystemExit(42)\n": (42, None, "failed"),
        "#!/bin/sh -e\nfalse; true\n": (1, None, "failed"),
        "#!/no/such/interpreter\n": (122, None, "refused"),
        "trap 'exit 0' TERM; (sleep 0.3; kill -TERM $$) & wait; exit 5": (0, None, "completed"),
    }
    engine = start_engine()
    tags = {new_tag(): body for body in ends}
    for tag, body in tags.items():
        assert isinstance(engine.submit(tag, body), messages.Submitted)
    told = {body: engine.wait(tag) for tag, body in tags.items()}
    seen = {b: (d["exit_code"], d["signal"], d["outcome"]) for b, d in told.items()}
    assert seen == ends
    assert "interpreter" in told["#!/no/such/interpreter\n"]["reason"]


def test_cancelled_while_it_runs_and_while_it_waits(start_engine, site):
    engine, running, held = start_engine(), new_tag(), new_tag()
    engine.submit(running, f"echo ran >>{site.ledger}; sleep 300")
    engine.submit(held, f"#SBATCH --hold\necho ran >>{site.ledger}")
    assert engine.wait(held, "queued")["reason"].startswith("JobHeldUser: it is held")
    engine.wait(running, "running")
    for tag in (running, held):
        assert engine.engine.handle(messages.Cancel(tag)) == messages.Done()
    for tag in (running, held):
        data = engine.wait(tag)
        assert (data["outcome"], data["reason"]) == ("cancelled", "cancelled on request")
    assert site.ran() == ["ran"]
    assert "running" not in kinds(engine, held)


def test_a_job_that_somebody_cancels_behind_our_back_is_cancelled(start_engine, site):
    engine, tag = start_engine(), new_tag()
    engine.submit(tag, "sleep 300")
    engine.wait(tag, "running")
    site.server.command("scancel", f"--name={tag}")
    data = engine.wait(tag)
    assert data["outcome"] == "cancelled"
    assert data["reason"] in ("cancelled", "cancelled by uid 0")


def test_an_end_of_its_own_after_the_cancel_is_told_as_it_was(start_engine):
    engine, tag = start_engine(), new_tag()
    # Slurm calls a job that ends by itself, while it is being cancelled, cancelled all the same.
    engine.submit(tag, "trap 'exit 0' TERM; sleep 300 & wait; exit 5")
    engine.wait(tag, "running")
    engine.engine.handle(messages.Cancel(tag))
    assert engine.wait(tag)["outcome"] == "cancelled"


def test_out_of_memory_of_the_script_and_of_a_step(start_engine, slurm_server):
    if not slurm_server.has_cgroups:
        return  # recorded: tests/unit/.../slurm/test_accounting.py; the closing line says so
    engine, script, step = start_engine(), new_tag(), new_tag()
    greedy = "python3 -c 'x = bytearray(300 << 20); import time; time.sleep(5)'"
    little = messages.Resources(memory_mib=60)
    engine.submit(script, greedy, resources=little)
    engine.submit(step, f"srun {greedy}", resources=little)
    assert engine.wait(script)["outcome"] == "out_of_memory"
    data = engine.wait(step)
    assert data["outcome"] == "out_of_memory", data
    assert "memory" in data["reason"]


def test_a_node_that_fails_and_a_job_that_is_requeued(start_engine, site):
    engine, lost, again = start_engine(), new_tag(), new_tag()
    node = site.server.nodes[1]
    engine.submit(lost, f"#SBATCH --nodelist={node}\nsleep 300")
    body = f"#SBATCH --nodelist={site.server.nodes[0]}\necho ran >>{site.ledger}\n"
    engine.submit(
        again, body + "test $SLURM_RESTART_COUNT && sleep 2 && exit 4; sleep 300", may_requeue=True
    )
    engine.wait(lost, "running")
    engine.wait(again, "running")
    site.server.command("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        assert engine.wait(lost)["outcome"] == "node_fail"
    finally:
        # slurmd may have registered again already: then there is nothing to resume.
        site.server.command("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        wait_until(lambda: site.server.is_node_up(node), what="the node's return")
    job_id = site.id_of(again)
    site.server.command("scontrol", "requeue", job_id)

    def is_queued_again():
        return [e for e in engine.read() if (e.tag, e.kind, e.run) == (again, "queued", 1)]

    wait_until(is_queued_again)
    site.server.command("scontrol", "update", f"jobid={job_id}", "StartTime=now")
    assert engine.wait(again)["exit_code"] == 4
    assert [e.run for e in engine.events if e.tag == again and e.kind == "running"] == [0, 1]
    assert [e.run for e in engine.events if e.tag == again and e.kind == "ended"] == [1]
    assert site.ran() == ["ran", "ran"]


def test_an_array_is_one_job_from_its_first_task_to_its_last(start_engine, site):
    engine, tag = start_engine(), new_tag()
    engine.submit(tag, "#SBATCH --array=0-3%2\nsleep 1; echo $SLURM_ARRAY_TASK_ID; "
                       "exit $SLURM_ARRAY_TASK_ID")  # fmt: skip
    data = engine.wait(tag)
    assert (data["outcome"], data["exit_code"]) == ("failed", 3)
    assert data["reason"] == "of 4 tasks: 3 failed, 1 completed"
    assert kinds(engine, tag).count("running") == 1
    assert sorted((site.jobs / tag / "stdout.log").read_text().split()) == ["0", "1", "2", "3"]
    assert {p.name for p in (site.jobs / tag / ".hpc").glob("exit.*")} == {
        f"exit.{n}.0" for n in range(4)
    }
    assert engine.wait(tag, "accounting")["elapsed_s"] >= 1


def test_what_can_never_start_says_so_and_can_be_cancelled(start_engine, site):
    engine, failed, tag = start_engine(), new_tag(), new_tag()
    first = engine.submit(failed, "exit 1")
    engine.submit(tag, f"#SBATCH --dependency=afterok:{first.scheduler_job_id}\ntrue")

    def reasons():
        told = [data["reason"] for kind, data in engine.of(tag) if kind == "queued"]
        return told if any(r.startswith("DependencyNeverSatisfied: ") for r in told) else None

    wait_until(reasons)
    assert kinds(engine, tag)[0] == "submitted"
    engine.engine.handle(messages.Cancel(tag))
    assert engine.wait(tag)["outcome"] == "cancelled"


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"partition": "nope"}, "invalid_request", "Invalid partition name specified"),
        ({"account": "nope"}, "invalid_request", "Invalid account"),
        ({"qos": "nope"}, "invalid_request", "Invalid qos specification"),
        ({"nodes": 99}, "invalid_request", "More processors requested than"),
        ({"partition": "debug", "walltime_s": 6000}, "invalid_request", "Requested time limit"),
        ({"memory_mib": 9_999_999}, "invalid_request", "Requested node configuration"),
    ],
)
def test_a_refusal_has_slurms_words(start_engine, changes, reason, words):
    answer = start_engine().submit(new_tag(), "true", resources=messages.Resources(**changes))
    assert isinstance(answer, messages.Rejected), answer
    assert (answer.reason, answer.transient) == (reason, False)
    assert words in answer.message


def test_a_limit_that_is_full_now_is_transient(start_engine, site):
    command = site.server.command
    command("sacctmgr", "-i", "add", "qos", "single", "MaxSubmitJobsPerUser=1")
    command("sacctmgr", "-i", "modify", "user", site.server.layout.user, "set", "qos+=single")
    engine, first, second = start_engine(), new_tag(), new_tag()
    resources = messages.Resources(qos="single")
    wait_until(lambda: isinstance(
        engine.submit(first, "#SBATCH --hold\ntrue", resources=resources, attempt=next(ATTEMPTS)),
        messages.Submitted))  # fmt: skip
    answer = engine.submit(second, "true", resources=resources)
    assert (answer.reason, answer.transient) == ("limits", True)
    assert "QOSMaxSubmitJobPerUserLimit" in answer.message
    engine.engine.handle(messages.Cancel(first))
    engine.wait(first)


def test_a_job_that_reached_its_time_limit(early):
    tag = early.jobs["timeout"]
    recorder = early.site.start(generation=2)
    try:
        assert recorder.wait(tag, limit_s=60)["outcome"] == "wall_time_exceeded"
    finally:
        recorder.engine.stop()


def test_a_script_is_warned_before_its_time_limit(early):
    recorder = early.site.start(generation=3)
    try:
        data = recorder.wait(early.jobs["warned"], limit_s=70)
        assert (data["outcome"], data["exit_code"]) == ("failed", 77)
    finally:
        recorder.engine.stop()


def test_a_job_that_left_the_queue_is_told_by_the_accounting(early):
    tag = early.jobs["vanished"]
    wait_until(lambda: not early.site.state_of(tag), 40, "its leaving the queue")
    recorder = early.site.start(generation=4)
    try:
        data = recorder.wait(tag)
        # sacct calls it 15:0; the exit record tells which it was.
        assert (data["outcome"], data["exit_code"], data["signal"]) == ("failed", None, 15)
        assert recorder.wait(tag, "accounting")["elapsed_s"] >= 2
    finally:
        recorder.engine.stop()


@pytest.mark.parametrize("how", [("-b", "-s", "USR1"), ("-f", "-s", "USR1"), ("-b", "-s", "INT")])
def test_a_signal_reaches_the_script_once(start_engine, site, how):
    engine, tag = start_engine(), new_tag()
    name = how[-1]
    engine.submit(
        tag,
        "#!/usr/bin/python3\n"
        "import signal, sys, time\n"
        "caught = []\n"
        f"signal.signal(signal.SIG{name}, lambda *_: caught.append(1))\n"
        "open('ready', 'w').close()\n"
        "while not caught: time.sleep(0.05)\n"
        "time.sleep(0.7)\n"
        "sys.exit(10 + len(caught))\n",
    )
    wait_until((site.jobs / tag / "ready").exists)
    site.server.command("scancel", *how, site.id_of(tag))
    assert engine.wait(tag)["exit_code"] == 11


def test_directives_count_and_typed_resources_win(start_engine, site):
    engine, tag = start_engine(), new_tag()
    script = (
        "#SBATCH --job-name=mine --output=elsewhere   # ours is used\n"
        "#SBATCH -n 3 -t 30 --comment='two words'\n"
        "#SBATCH --hold --requeue\n"
        "true\n"
        "#SBATCH -n 5"
    )
    engine.submit(tag, script, resources=messages.Resources(walltime_s=90))
    assert engine.wait(tag, "submitted")["name"] == "mine"
    shown = site.server.command("scontrol", "show", "job", site.id_of(tag))
    for words in (
        f"JobName={tag}",
        "NumTasks=3",
        "TimeLimit=00:02:00",
        "Comment=two words",
        "Requeue=1",
        f"StdOut={site.jobs}/{tag}/stdout.log",
    ):
        assert words in shown, shown


def test_pbs_and_bsub_lines_count_as_with_a_hand_made_sbatch(start_engine, site):
    engine, pbs, bsub = start_engine(), new_tag(), new_tag()
    script = (
        "#$ -pe smp 4\n#PBS -N theirs -h -o /elsewhere\n#PBS -l nodes=1:ppn=3,walltime=00:05:00"
    )
    engine.submit(pbs, script, resources=messages.Resources(memory_mib=50, walltime_s=420))
    # Its own memory would clash with ours.
    engine.submit(bsub, "#SBATCH -H\n#BSUB -M 70 -n 2 -J 'a b'\n#BSUB -W 6",
                  resources=messages.Resources(memory_mib=50))  # fmt: skip
    assert engine.wait(pbs, "submitted")["name"] == "theirs"
    assert engine.wait(bsub, "submitted")["name"] == "a b"
    for tag, tasks, minutes in ((pbs, 3, 7), (bsub, 2, 6)):
        shown = site.server.command("scontrol", "show", "job", site.id_of(tag))
        for words in (
            f"JobName={tag}",
            f"NumTasks={tasks}",
            f"TimeLimit=00:0{minutes}:00",
            "MinMemoryNode=50M",
            "Reason=JobHeldUser",
            f"StdOut={site.jobs}/{tag}/stdout.log",
        ):
            assert words in shown, shown


def test_what_a_script_may_not_ask_for_is_refused_by_name(start_engine):
    engine = start_engine()
    answer = engine.submit(new_tag(), "#SBATCH --export=NONE\n#SBATCH -W\n#PBS -v A=1\ntrue")
    assert (answer.reason, answer.transient) == ("invalid_request", False)
    for option in ("--export", "-W", "#PBS -v"):
        assert f"{option} can't be used: " in answer.message
    assert engine.engine.status()["commands"].get("submit", 0) == 0
