"""Why a job waits: Slurm's word, what it means, and whether somebody must act."""

from __future__ import annotations

import pytest

from cluster_client.schedulers.slurm import reasons


@pytest.mark.parametrize("reason", ["None", "N/A", ""])
def test_without_a_reason_there_is_nothing_to_tell(reason):
    assert reasons.of_waiting(reason) == ""
    assert not reasons.needs_action(reason)


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("Priority", "Priority: jobs of higher priority go first"),
        ("Resources", "Resources: it is next, once enough is free"),
        (
            "ReqNodeNotAvail, UnavailableNodes:n[1-9]",
            "ReqNodeNotAvail: nodes that it asks for are down, drained or reserved",
        ),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in",
            "Nodes required for job are DOWN: or drained, or kept for others: it waits for their"
            " return",
        ),
        (
            "QOSMaxJobsPerUserLimit",
            "QOSMaxJobsPerUserLimit: a limit of its QOS is reached: it starts once other jobs there"
            " have ended",
        ),
        (
            "AssocGrpCPURunMinutesLimit",
            "AssocGrpCPURunMinutesLimit: a limit of its account is reached: it starts once other"
            " jobs there have ended",
        ),
        (
            "AssociationJobLimit",
            "AssociationJobLimit: a limit of its account is reached: it starts once other jobs"
            " there have ended",
        ),
        ("SomethingNew", "SomethingNew"),
        ("Something new, with more", "Something new, with more"),
    ],
)
def test_what_passes_by_itself_is_told_so(reason, told):
    assert reasons.of_waiting(reason) == told
    assert not reasons.needs_action(reason)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("DependencyNeverSatisfied", "can't happen any more: cancel it"),
        ("JobHeldUser", "scontrol release lets it go"),
        ("JobHeldAdmin", "ask the site"),
        ("launch failed requeued held", "its launch failed and it is held"),
        ("PartitionDown", "the partition is down"),
        ("QOSMaxCpuPerJobLimit", "its QOS does not allow one job so much"),
        ("QOSMinCpuNotSatisfied", "its QOS does not allow one job so much, or so little"),
        ("AssocMaxWallDurationPerJobLimit", "its account does not allow one job so much"),
        ("AssocGrpCPUMinutesLimit", "the hours of its account are used up"),
        ("QOSGrpBillingMinutes", "the hours of its QOS are used up"),
        ("QOSNotAllowed", "its QOS may not be used there"),
    ],
)
def test_what_lasts_until_somebody_acts_is_told_so(reason, words):
    assert reasons.of_waiting(reason).startswith(f"{reason}: ")
    assert words in reasons.of_waiting(reason)
    assert reasons.needs_action(reason)
