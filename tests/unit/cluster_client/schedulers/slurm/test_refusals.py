"""What sbatch's words mean, from recordings."""

from __future__ import annotations

import pytest

from cluster_client.schedulers import Output, Refusal, Unclear
from cluster_client.schedulers.slurm import refusals
from tests import recorded


def answer_to(name):
    output = recorded.output(f"slurm/sbatch-{name}")
    return refusals.classify(output.stderr, output.returncode)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bad-account", "Invalid account or account/partition combination specified"),
        ("bad-array", "Invalid job array specification"),
        ("bad-constraint", "Invalid feature specification"),
        ("bad-gres", "Invalid generic resource (gres) specification"),
        ("bad-licence", "Invalid license specification"),
        ("bad-option", "unrecognized option '--bogus'"),
        ("bad-partition", "Invalid partition name specified"),
        ("bad-qos", "Invalid qos specification"),
        ("bad-reservation", "Requested reservation is invalid"),
        ("bad-time", "Invalid --time specification"),
        ("bsub-bad-tasks", "#BSUB -n format not correct"),
        ("exclusive-options", "mutually exclusive"),
        ("limit-of-one-job", "QOSMaxCpuPerJobLimit"),
        ("no-shebang", "This does not look like a batch script"),
        ("pbs-bad-option", "invalid option -- 'X'"),
        ("pbs-stray-word", "Invalid argument: foo"),
        ("stray-word", "Invalid directive found in batch script: stray"),
        ("too-long", "Requested time limit is invalid"),
        ("too-many-nodes", "Node count specification invalid"),
        ("too-many-tasks", "More processors requested than permitted"),
        ("too-much-memory", "Memory specification can not be satisfied"),
    ],
)
def test_what_can_never_be_taken_is_refused_for_good(name, words):
    answer = answer_to(name)
    assert isinstance(answer, Refusal), answer
    assert (answer.reason, answer.transient) == ("invalid_request", False)
    assert words in answer.message
    assert "sbatch: error" not in answer.message


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("controller-down", "unavailable"),
        ("limit-reached", "limits"),
        ("munge-down", "unavailable"),
        ("no-configuration", "unavailable"),
        ("partition-drained", "unavailable"),
    ],
)
def test_what_may_be_taken_later_is_transient(name, reason):
    answer = answer_to(name)
    assert isinstance(answer, Refusal), answer
    assert (answer.reason, answer.transient) == (reason, True)


@pytest.mark.parametrize(
    "words",
    [
        "Socket timed out on send/recv operation",
        "Unable to contact slurm controller (receive failure)",
    ],
)
def test_what_may_have_been_taken_is_unclear(words):
    stderr = f"sbatch: error: Batch job submission failed: {words}\n"
    assert refusals.classify(stderr, 1) == Unclear(f"Batch job submission failed: {words}")


def test_an_error_that_is_not_known_keeps_the_job_waiting_if_it_is_found_nowhere():
    stderr = (
        "sbatch: error: Buy hours\nsbatch: error: Batch job submission failed: Unspecified error"
    )
    message = "Buy hours; Batch job submission failed: Unspecified error"
    refusal = Refusal("unknown", message, transient=True)
    assert refusals.classify(stderr, 1) == Unclear(message, if_absent=refusal)
    assert refusals.classify("a wrapper of the site failed", 1) == Unclear(
        "a wrapper of the site failed"
    )


def test_a_command_that_was_killed_is_unclear():
    output = Output(-9, "", "sbatch: error: Batch job submission failed: Invalid qos specification")
    assert isinstance(refusals.classify(output.stderr, output.returncode), Unclear)
    assert isinstance(refusals.classify("", 1), Unclear)
