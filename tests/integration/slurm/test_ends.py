"""Every end that Slurm can be brought to, told by the engine."""

from __future__ import annotations

import pytest

from cluster_client.protocol import messages
from ops import errors, processes, slurm_configuration

from .conftest import new_tag, wait_until
from .crowd import ENDS, NO_INTERPRETER, SIGNALS


def kinds(events):
    return [kind for kind, _ in events]


def test_a_job_runs_in_its_directory_and_ends_completed(crowd):
    assert crowd.wait("good")["outcome"] == "completed"
    accounting = crowd.wait("good", "accounting")
    assert accounting["elapsed_s"] >= 1
    assert accounting["max_memory_mib"] > 0
    assert accounting["cpu_s"] >= 0
    # It may be over before it is seen to wait, or to run.
    told = [kind for kind in kinds(crowd.of("good")) if kind not in ("queued", "running")]
    assert told == ["submitted", "ended", "accounting"]
    directory = crowd.directory("good")
    assert (directory / "stdout.log").read_text() == f"{directory}\n"
    assert (directory / "stderr.log").read_text() == "oops\n"
    claim = (directory / ".hpc" / "claim").read_text().split()[0]
    assert claim == f"{crowd.server.layout.cluster}:{crowd.ids['good']}"
    hints = f"{crowd.tags['good']}.*"
    wait_until(lambda: not list(crowd.site.hints.glob(hints)), what="the removal of its hints")


def test_how_it_ended_is_told_to_the_letter(crowd):
    told = {body: crowd.wait(f"end of: {body}") for body in ENDS}
    seen = {b: (d["exit_code"], d["signal"], d["outcome"]) for b, d in told.items()}
    assert seen == ENDS
    assert "interpreter" in told[NO_INTERPRETER]["reason"]


def test_a_signal_reaches_the_script_once(crowd):
    for how in SIGNALS:
        wait_until((crowd.directory(f"gets {' '.join(how)}") / "ready").exists)
    for which, name in SIGNALS:
        crowd.server.command("scancel", which, "-s", name, crowd.ids[f"gets {which} {name}"])
    codes = {how: crowd.wait(f"gets {' '.join(how)}")["exit_code"] for how in SIGNALS}
    assert codes == dict.fromkeys(SIGNALS, 11)


def test_cancelled_while_it_runs_and_while_it_waits(crowd):
    names = ("cancelled", "cancelled held", "ends while cancelled")
    assert crowd.wait(names[1], "queued")["reason"].startswith("JobHeldUser: it is held")
    for name in (names[0], names[2], "cancelled by somebody"):
        crowd.wait(name, "running")
    for name in names:
        assert crowd.cancel(name) == messages.Done()
    crowd.server.command("scancel", crowd.ids["cancelled by somebody"])
    for name in names:
        data = crowd.wait(name)
        assert (data["outcome"], data["reason"]) == ("cancelled", "cancelled on request")
    data = crowd.wait("cancelled by somebody")
    assert data["outcome"] == "cancelled"
    assert data["reason"] in ("cancelled", "cancelled by uid 0")
    assert "running" not in kinds(crowd.of(names[1]))
    assert not (crowd.directory(names[1]) / "ready").exists()


def test_out_of_memory_of_the_script_and_of_a_step(crowd):
    if not crowd.server.has_cgroups:
        return  # recorded: tests/unit/.../slurm/test_accounting.py; the closing line says so
    assert crowd.wait("greedy")["outcome"] == "out_of_memory"
    data = crowd.wait("greedy step")
    assert data["outcome"] == "out_of_memory", data
    assert "memory" in data["reason"]


def test_an_array_is_one_job_from_its_first_task_to_its_last(crowd):
    data = crowd.wait("array")
    assert (data["outcome"], data["exit_code"]) == ("failed", 3)
    assert data["reason"] == "of 4 tasks: 3 failed, 1 completed"
    assert kinds(crowd.of("array")).count("running") <= 1  # none if nobody looked meanwhile
    directory = crowd.directory("array")
    assert sorted((directory / "stdout.log").read_text().split()) == ["0", "1", "2", "3"]
    records = {path.name for path in (directory / ".hpc").glob("exit.*")}
    assert records == {f"exit.{number}.0" for number in range(4)}
    # Slurm counts whole seconds, so each task sleeps one.
    assert crowd.wait("array", "accounting")["elapsed_s"] >= 1


def test_what_can_never_start_says_so_and_can_be_cancelled(crowd):
    def has_said_so():
        told = [data["reason"] for kind, data in crowd.of("never") if kind == "queued"]
        return any(reason.startswith("DependencyNeverSatisfied: ") for reason in told)

    wait_until(has_said_so)
    assert kinds(crowd.of("never"))[0] == "submitted"
    crowd.cancel("never")
    assert crowd.wait("never")["outcome"] == "cancelled"


def test_a_node_that_fails_and_a_job_that_is_requeued(start_engine, site):
    engine, lost, again = start_engine(), new_tag(), new_tag()
    node = site.server.nodes[1]
    engine.submit(lost, f"#SBATCH --nodelist={node}\nsleep 300")
    body = f"#SBATCH --nodelist={site.server.nodes[0]}\necho ran >>{site.ledger}\n"
    engine.submit(
        again, body + "test $SLURM_RESTART_COUNT && sleep 1 && exit 4; sleep 300", may_requeue=True
    )
    engine.wait(lost, "running")
    engine.wait(again, "running")
    wait_until(site.ran, what="the first run's word")
    job_id = site.id_of(again)
    site.server.command("scontrol", "requeue", job_id)

    def is_queued_again():
        return [e for e in engine.read() if (e.tag, e.kind, e.run) == (again, "queued", 1)]

    wait_until(is_queued_again)
    # In the second of the requeue its credential would be as old as the one that was revoked.
    site.server.command("scontrol", "update", f"jobid={job_id}", "StartTime=now+2")
    site.server.command("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        assert engine.wait(lost)["outcome"] == "node_fail"
    finally:
        # slurmd may have registered again already: then there is nothing to resume.
        site.server.command("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        wait_until(lambda: site.server.is_node_up(node), what="the node's return")
    assert engine.wait(again)["exit_code"] == 4
    assert [e.run for e in engine.events if e.tag == again and e.kind == "running"] == [0, 1]
    assert [e.run for e in engine.events if e.tag == again and e.kind == "ended"] == [1]
    assert site.ran() == ["ran", "ran"]


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


@pytest.fixture(scope="module")
def limits(slurm_server):
    """QOS that our user may use: `single`, `narrow`, and `urgent`, which preempts `narrow`."""
    command = slurm_server.command
    single = ("MaxSubmitJobsPerUser=1", "MaxTRESPerJob=cpu=1")
    command("sacctmgr", "-i", "add", "qos", "single", *single)
    command("sacctmgr", "-i", "add", "qos", "narrow", "MaxJobsPerUser=1")
    command("sacctmgr", "-i", "add", "qos", "urgent", "Preempt=narrow", "PreemptMode=cancel")
    user = slurm_server.layout.user
    command("sacctmgr", "-i", "modify", "user", user, "set", "qos+=single,narrow,urgent")

    def are_known():
        try:
            command("sbatch", "--test-only", "--qos=urgent", "--wrap=true")
        except errors.NotStarted:
            return False
        return True

    wait_until(are_known)


def test_a_limit_that_is_full_now_is_transient(start_engine, limits):
    engine, first, second = start_engine(), new_tag(), new_tag()
    resources = messages.Resources(qos="single")
    answer = engine.submit(first, "#SBATCH --hold\ntrue", resources=resources)
    assert isinstance(answer, messages.Submitted), answer
    answer = engine.submit(second, "true", resources=resources)
    assert (answer.reason, answer.transient) == ("limits", True)
    assert "QOSMaxSubmitJobPerUserLimit" in answer.message
    engine.engine.handle(messages.Cancel(first))
    engine.wait(first)


def test_a_job_that_has_to_give_way_is_preempted(start_engine, site, limits):
    engine, node, (first, second) = start_engine(), site.server.nodes[1], (new_tag(), new_tag())
    whole = f"#SBATCH -w {node} -n {slurm_configuration.CPUS} --mem-per-cpu=1\n"
    engine.submit(first, f"{whole}sleep 60", resources=messages.Resources(qos="narrow"))
    engine.wait(first, "running")
    engine.submit(second, f"{whole}true", resources=messages.Resources(qos="urgent"))
    data = engine.wait(first)
    assert (data["outcome"], data["scheduler_state"]) == ("preempted", "PREEMPTED")
    assert data["reason"] == "it had to give way to another job"
    assert engine.wait(second)["outcome"] == "completed"


def test_why_a_job_waits_is_told_in_slurms_word_and_in_a_users(start_engine, site, limits):
    engine, command = start_engine(submit_parallel=4), site.server.command
    node = site.server.nodes[1]
    whole = f"-w {node} -n {slurm_configuration.CPUS} --mem-per-cpu=1"
    options = {
        "": whole,  # they run, and keep the others waiting
        "-": "-q narrow",
        "Resources": whole,
        "QOSMaxJobsPerUserLimit": "-q narrow",
        "QOSMaxCpuPerJobLimit!": "-q single -n 2",
        "PartitionDown!": "-p debug",
        "JobHeldUser!": "-H",
        "BeginTime": "--begin=now+1hour",
    }
    command("scontrol", "update", "partitionname=debug", "state=down")
    try:
        tags = {word: new_tag() for word in options}
        for word, tag in tags.items():
            engine.submit(tag, f"#SBATCH {options[word]}\nsleep 60")
        for word in ("", "-"):
            engine.wait(tags.pop(word), "running")

        def missing():
            return {
                word: told for word, tag in tags.items() if not is_told(word, told := waits(tag))
            }

        def waits(tag):
            return [data for kind, data in engine.of(tag) if kind == "queued"]

        def is_told(word, told):
            wanted = (f"{word.rstrip('!')}: ", word.endswith("!"))
            return any(
                data["reason"].startswith(wanted[0])
                and data.get("needs_action", False) is wanted[1]
                for data in told
            )

        processes.wait_until(lambda: not missing(), 15)
        assert missing() == {}
    finally:
        command("scontrol", "update", "partitionname=debug", "state=up")


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


def test_each_typed_resource_counts(start_engine, site):
    engine, tag = start_engine(), new_tag()
    asked = messages.Resources(
        nodes=2, tasks=4, cpus_per_task=3, memory_mib=64, walltime_s=7200, partition="main",
        account=slurm_configuration.ACCOUNT, qos="normal",
    )  # fmt: skip
    engine.submit(tag, "#SBATCH --hold -N1 -n1 -c1 -p debug -A nope -q nope", resources=asked)
    shown = site.server.command("scontrol", "show", "job", site.id_of(tag)).split()
    assert {
        "NumNodes=2-2", "NumTasks=4", "CPUs/Task=3", "MinMemoryNode=64M", "TimeLimit=02:00:00",
        "Partition=main", "Account=proj1", "QOS=normal",
    } <= set(shown), shown  # fmt: skip


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
