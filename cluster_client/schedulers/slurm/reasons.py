"""Why a job waits, in Slurm's word and in a user's words; PURE.

Rules:
- Slurm's word comes first, since that is what a site's pages and its help desk speak of.
- The nodes that Slurm may list behind it are left out: they change while nothing else does.
- A word that is not known here is told as it is.
Source: https://slurm.schedmd.com/job_reason_codes.html, resource_limits.html; JOB_STATE_REASON in
slurm.h. Some were seen with 22.05, which prints a few with spaces.
"""

from __future__ import annotations

import re

_NONE = ("None", "N/A", "")

_PASSES = {
    "BeginTime": "its begin time is still to come",
    "BurstBufferResources": "not enough of the burst buffer is free",
    "BurstBufferStageIn": "its files are being brought to the burst buffer",
    "Cleaning": "it is requeued, and what is left of its last run is being cleared away",
    "Dependency": "the jobs that it depends on have not ended",
    "FedJobLock": "the clusters of the federation agree on who starts it",
    "JobArrayTaskLimit": "as many tasks of the array run as it allows at once",
    "Licenses": "not enough licences are free",
    "MaxRequeue": "it was requeued too often",
    "NodeDown": "a node that it needs is down",
    "Nodes_required_for_job_are_DOWN": "or drained, or kept for others: it waits for their return",
    "PartitionConfig": "what it asks for is not in the partition now",
    "Priority": "jobs of higher priority go first",
    "Prolog": "its nodes are being prepared",
    "ReqNodeNotAvail": "nodes that it asks for are down, drained or reserved",
    "Reservation": "its reservation has not begun, or is full",
    "Resources": "it is next, once enough is free",
    "RequeuedForPreemption": "it gave way to another job and starts again",
}

_FOR_EVER = {
    "AccountNotAllowed": "its account may not use the partition: cancel it",
    "AccountingPolicy": "the rules of its account don't allow it: cancel it, or ask the site",
    "BadConstraints": "no node has what it asks for: cancel it",
    "DependencyNeverSatisfied": "what it waits for can't happen any more: cancel it",
    "InvalidAccount": "its account is not valid any more: cancel it",
    "InvalidQOS": "its QOS is not valid any more: cancel it",
    "JobHeldAdmin": "an administrator holds it: ask the site",
    "JobHeldUser": "it is held: scontrol release lets it go",
    "PartitionDown": "the partition is down: wait for the site, or cancel it",
    "PartitionInactive": "the partition is inactive: wait for the site, or cancel it",
    "PartitionNodeLimit": "it asks for more nodes than the partition gives: cancel it",
    "PartitionTimeLimit": "it asks for more time than the partition gives: cancel it",
    "QOSNotAllowed": "its QOS may not be used there: cancel it",
    "ReservationDeleted": "its reservation is gone: cancel it",
    "job_requeued_in_held_state": "it was requeued and is held: scontrol release lets it go",
    "launch_failed_requeued_held": "its launch failed and it is held: ask the site",
}
"""The job waits until somebody acts."""

_LIMIT = re.compile(
    r"(QOS|Assoc)(?:iation)?(?:((?:Grp|Max|Min)\w+?)(?:Limit)?|\w+(?:Limit|Threshold))"
)
_OF_ONE_JOB = re.compile(r"PerJob|PerNode|^Min|^MaxWallDuration$")


def of_waiting(reason: str) -> str:
    """What to tell of it; "" if there is no reason."""
    if reason in _NONE:
        return ""
    word = _word(reason)
    told = _PASSES.get(_key(word)) or _FOR_EVER.get(_key(word)) or _of_limit(word)[0]
    return f"{word}: {told}" if told else reason


def needs_action(reason: str) -> bool:
    """Whether the job waits for ever unless somebody acts."""
    word = _word(reason)
    return _key(word) in _FOR_EVER or _of_limit(word)[1]


def _word(reason: str) -> str:
    return reason.partition(",")[0].strip()


def _key(word: str) -> str:
    return word.replace(" ", "_")


def _of_limit(word: str) -> tuple[str, bool]:
    """A limit's words, and whether it stands until somebody acts."""
    match = _LIMIT.fullmatch(word)
    if not match:
        return "", False
    whose, what = "QOS" if match[1] == "QOS" else "account", match[2] or ""
    if _OF_ONE_JOB.search(what):
        return f"its {whose} does not allow one job so much, or so little: cancel it", True
    if what.endswith("Minutes") and not what.endswith("RunMinutes"):
        return f"the hours of its {whose} are used up: ask for more, or cancel it", True
    return f"a limit of its {whose} is reached: it starts once other jobs there have ended", False
