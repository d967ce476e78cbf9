"""Which directive lines of a script go into the wrapper, and which are refused."""

from __future__ import annotations

import pytest

from cluster_client.protocol.messages import Resources
from cluster_client.schedulers.slurm import directives, options


def header(*lines, **resources):
    script = "\n".join(("#!/bin/bash", *lines, "true", ""))
    return directives.header(script, Resources(**resources))


def test_only_the_lines_before_the_first_command_count():
    script = "#!/bin/sh\n\n# words\n#SBATCH -n 1\n  # more\nmodule load x\n#SBATCH -n 2\n"
    assert directives.header(script, Resources()) == ["#SBATCH -n 1"]


def test_lines_go_in_as_they_are():
    lines = [
        "#SBATCH --ntasks=4 -N2",
        "#SBATCH --array=0-9%2   # ten of them",
        '#SBATCH --constraint="a&b"',
        "#SBATCH --signal=B:USR1@60",
    ]
    assert header(*lines) == lines


def test_what_we_set_ourselves_is_left_out():
    assert header("#SBATCH --job-name=x", "#SBATCH -o out -e err -D /tmp", "#SBATCH -Q") == []
    assert header("#SBATCH -J x -n 4 --output out") == ["#SBATCH -n 4"]
    assert header("#SBATCH -o x --comment='a b'") == ['#SBATCH "--comment=a b"']


def test_a_typed_resource_wins_over_the_directives_that_mean_the_same():
    lines = ["#SBATCH --mem-per-cpu=1G -t 5", "#SBATCH -p a -A b -q c", "#SBATCH -N1 -n2 -c3"]
    assert header(*lines, memory_mib=5) == ["#SBATCH -t 5", *lines[1:]]
    assert header(*lines, walltime_s=60) == ["#SBATCH --mem-per-cpu=1G", *lines[1:]]
    assert header(*lines, partition="x") == [lines[0], "#SBATCH -A b -q c", lines[2]]
    everything = {
        "nodes": 1, "tasks": 1, "cpus_per_task": 1, "memory_mib": 1, "walltime_s": 1,
        "partition": "x", "account": "x", "qos": "x",
    }  # fmt: skip
    assert header(*lines, **everything) == []


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("#SBATCH --wrap='x'", "--wrap"),
        ("#SBATCH -W", "-W"),
        ("#SBATCH --wait", "--wait"),
        ("#SBATCH --parsable", "--parsable"),
        ("#SBATCH --pars", "--pars"),
        ("#SBATCH --export=NONE", "--export"),
        ("#SBATCH --export-file=x", "--export-file"),
        ("#SBATCH hetjob", "hetjob"),
        ("#SBATCH -N1 : -N2", ":"),
        ("#SBATCH -M other", "-M"),
        ("#SBATCH --test-only", "--test-only"),
        ("#SBATCH --uid=1", "--uid"),
    ],
)
def test_what_can_not_be_followed_is_refused_by_name(line, name):
    (words,) = directives.objections(f"#!/bin/sh\n{line}\ntrue\n")
    assert words.startswith(f"{name} can't be used: ")


def test_a_line_that_nobody_can_read_is_refused():
    (words,) = directives.objections("#!/bin/sh\n#SBATCH --comment='x\ntrue\n")
    assert "can't be read" in words


def test_the_last_job_name_is_the_display_name():
    assert directives.job_name("#!/bin/sh\n#SBATCH -J a\n#SBATCH --job-name 'b c'\n") == "b c"
    assert directives.job_name("#!/bin/sh\n") == ""


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("--time=5", [("time", "5")]),
        ("--time 5", [("time", "5")]),
        ("--part main", [("partition", "main")]),
        ("--mem 5", [("mem", "5")]),
        ("--exclusive -n 2", [("exclusive", ""), ("ntasks", "2")]),
        ("--hold -H", [("hold", ""), ("hold", "")]),
        ("-N4", [("nodes", "4")]),
        ("-HN 4", [("hold", ""), ("nodes", "4")]),
        ("-k -n2", [("no-kill", ""), ("ntasks", "2")]),
        ("--no-such-thing=1", [("no-such-thing", "1")]),
        ("-n 2 # -N 3", [("ntasks", "2")]),
        ("stray", [("", "")]),
    ],
)
def test_options_are_read_as_sbatch_does(text, read):
    assert [(option.name, option.value) for option in options.read(text)] == read


def test_a_prefix_that_could_mean_two_options_stays_as_it_is():
    assert options.full_name("mem-") == "mem-"
    assert options.full_name("mem") == "mem"
    assert options.full_name("acco") == "account"


def test_the_lines_of_other_systems_go_in_as_they_are():
    lines = ["#PBS -l nodes=2:ppn=3,mem=1gb -q main", "#$ -pe smp 4", "#BSUB -M 100 -n 2 -W 5"]
    assert header(*lines, walltime_s=60, nodes=1, partition="x") == lines
    assert header("#SBATCH --ignore-pbs -Q", *lines) == ["#SBATCH --ignore-pbs", *lines]


def test_a_typed_memory_and_that_of_a_bsub_line_would_clash():
    assert header("#PBS -l mem=1gb", memory_mib=5) == ["#PBS -l mem=1gb"]
    assert header("#BSUB -M 100", "#BSUB -n 2", memory_mib=5) == ["#BSUB -n 2"]
    assert header("#BSUB --memory_limit=9 -J 'a b'", memory_mib=5) == ['#BSUB -J "a b"']
    assert header("#BSUB -cwd /tmp -xM9 -q main", memory_mib=5) == ["#BSUB -c /tmp -x -q main"]


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        (["#PBS -l nodes=1 -N a", "#PBS -Nb"], "b"),
        (["#PBS --job_name c"], "c"),
        (["#PBS -N a", "#SBATCH -J b"], "a"),
        (["#PBS -N a", "#BSUB -J b"], "b"),
        (["#PBS -N a", "#BSUB -n 2"], ""),
        (["#SBATCH --ignore-pbs", "#PBS -N a"], ""),
        (["#$ -N a"], ""),
    ],
)
def test_the_name_that_sbatch_would_give_the_job_is_its_display_name(lines, name):
    assert directives.job_name("\n".join(("#!/bin/sh", *lines, "true"))) == name


@pytest.mark.parametrize("line", ["#PBS -q main -v A=1", "#PBS -vA=1", "#PBS --variable_list=A"])
def test_a_pbs_line_may_not_choose_the_environment(line):
    (words,) = directives.objections(f"#!/bin/sh\n{line}\ntrue\n")
    assert words.startswith("#PBS -")
    assert "can't be used: the job's environment is built here" in words
    assert not list(directives.objections("#!/bin/sh\n#PBS -V -W umask=022\n#BSUB -v\n"))
