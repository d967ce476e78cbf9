"""What sbatch's words mean for a job that it did not take; PURE.

Rules:
- A refusal is certain: sbatch ended by itself, and said that it, or the controller, refused.
- What may have reached the controller without its answer having reached us is unclear.
- An error of the controller that is not in the tables (of a site's plugin, or of a newer Slurm) is
  a refusal if a look-up finds nothing; what it comes to is not known, so the job is kept waiting.
- More is said above the last line: QOSMaxSubmitJobPerUserLimit and its kin name the limit.
Source of the words: src/common/slurm_errno.c and src/sbatch/ of Slurm 22.05; most were seen.
"""

from __future__ import annotations

import re
from typing import Optional, Union

from cluster_client.schedulers import Refusal, Unclear

_UNCLEAR = (
    "Message receive failure",
    "Socket timed out on send/recv operation",
    "Unable to contact slurm controller (receive failure)",
    "Unable to contact slurm controller (send failure)",
    "Unable to contact slurm controller (shutdown failure)",
    "Unexpected message received",
    "Zero Bytes were transmitted or received",
)

_ANSWERED = "Batch job submission failed"

# A limit of the whole user, account or QOS passes; one of a single job does not.
_LIMIT_OF_ONE_JOB = re.compile(r"^(Assoc|QOS)(.*PerJob|Min)")

_TRANSIENT = {
    "limits": (
        "Burst Buffer resource limit exceeded",
        "Job violates accounting/QOS policy",
        "Requested account has breached requested QOS usage threshold",
    ),
    "busy": (
        "Job can not be altered now, try again later",
        "Requested nodes are busy",
        "Requested partition configuration not available now",
        "Resource temporarily unavailable",
        "Unable to create job record, try again",
    ),
    "unavailable": (
        "Can't find an address, check slurm.conf",
        "Communication connection failure",
        "Controller is in standby mode",
        "Could not establish a configuration source",
        "Failed to connect to authentication agent",
        "I/O error writing script/environment to file",
        "Invalid authentication credential",
        "Job can not start due to maintenance reservation",
        "Message send failure",
        "No clusters can be reached now",
        "Partition in DOWN state",
        "Protocol authentication error",
        "Requested operation is presently disabled",
        "Requested reservation not usable now",
        "Required node not available (down, drained or reserved)",
        "Required partition not available (inactive or drain)",
        "Slurm backup controller in standby mode",
        "System submissions disabled",
        "Unable to connect to database",
        "Unable to contact slurm controller (connect failure)",
        "Unable to process configuration file",
    ),
}

_PERMANENT = (
    "Access denied to requested reservation",
    "Access/permission denied",
    "Batch script is empty",
    "Burst Buffer permission denied",
    "Burst Buffer request invalid",
    "CPU count specification invalid",
    "#BSUB -n format not correct given",
    "Cannot request more threads per core than the job allocation",
    "Circular job dependency",
    "DOS line breaks",
    "Duplicate generic resource (gres) specification",
    "Insufficient GRES available in allocation",
    "Invalid --",
    "Invalid GRES",
    "Invalid Trackable RESource",
    "Invalid argument: ",
    "Invalid directive found in batch script",
    "Invalid account or account/partition combination specified",
    "Invalid cluster name",
    "Invalid feature specification",
    "Invalid generic resource (gres) specification",
    "Invalid group id",
    "Invalid job array specification",
    "Invalid license specification",
    "Invalid node name specified",
    "Invalid numeric value",
    "Invalid partition name specified",
    "Invalid preferred feature specification",
    "Invalid qos specification",
    "Invalid time specification",
    "Invalid time-min specification",
    "Invalid user id",
    "Invalid wckey specification",
    "Job --batch option is invalid",
    "Job dependency problem",
    "Job script not specified",
    "Job size specification needs to be provided",
    "Memory required by task is not available",
    "Memory specification can not be satisfied",
    "More processors requested than permitted",
    "Multiple partition job request not supported",
    "No eligible clusters for federated job",
    "No partition specified or system default partition",
    "No value given for ",
    "Node count specification invalid",
    "Only batch jobs are accepted or processed",
    "Pathname of a file, directory or other parameter too long",
    "Requested GRES option unsupported",
    "Requested more tasks than available processors",
    "Requested node configuration is not available",
    "Requested nodes not in this partition",
    "Requested reservation is invalid",
    "Requested time limit is invalid (missing or exceeds some limit)",
    "Task count specification invalid",
    "Task distribution specification invalid",
    "This does not look like a batch script",
    "Unrecognized command line parameter",
    "Time limit specification required, but not provided",
    "User's group not permitted to use this partition",
    "contain a NULL character",
    "mutually exclusive",
    "sbatch: ambiguous option",
    "sbatch: invalid option",
    "sbatch: option",
    "sbatch: unrecognized option",
    'Try "sbatch --help" for more information',
)


def classify(stderr: str, returncode: int) -> Union[Refusal, Unclear]:
    """Why sbatch ended with `returncode`, which is not 0."""
    message = words_of(stderr) or f"sbatch ended with {returncode} and said nothing"
    if returncode < 0 or any(words in stderr for words in _UNCLEAR):
        return Unclear(message)
    if transient := _transient(stderr):
        return Refusal(transient, message, transient=True)
    if _is_permanent(stderr):
        return Refusal("invalid_request", message, transient=False)
    if _ANSWERED in stderr:
        return Unclear(message, if_absent=Refusal("unknown", message, transient=True))
    return Unclear(message)


def words_of(stderr: str) -> str:
    """sbatch's own words in one line, without what every line begins with."""
    lines = [re.sub(r"^sbatch: ((error|fatal): )?", "", line) for line in stderr.splitlines()]
    return "; ".join(line.strip() for line in lines if line.strip())[:1000]


def _transient(stderr: str) -> Optional[str]:
    if _names_limit_of_one_job(stderr):
        return None
    for reason, known in _TRANSIENT.items():
        if any(words in stderr for words in known):
            return reason
    return None


def _names_limit_of_one_job(stderr: str) -> bool:
    lines = [line.rpartition(" ")[2] for line in stderr.splitlines()]
    return any(_LIMIT_OF_ONE_JOB.match(line) for line in lines)


def _is_permanent(stderr: str) -> bool:
    return _names_limit_of_one_job(stderr) or any(words in stderr for words in _PERMANENT)
