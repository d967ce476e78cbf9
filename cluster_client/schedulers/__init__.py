"""What every scheduler adapter offers; PURE: argv lists out, text in. One file per scheduler.

Rules:
- An adapter runs nothing and opens nothing. It builds a Command, and reads what came of it.
- A parser that can't trust its text raises QueryFailed: unknown is not absent.
- An unknown state of the scheduler is reported (state UNKNOWN with the raw word), never raised.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Optional, Protocol, Union

from cluster_client.protocol import messages

QUEUED = "queued"
RUNNING = "running"
ENDED = "ended"
ABSENT = "absent"
UNKNOWN = "unknown"


class QueryFailed(Exception):
    """The answer of the scheduler can't be used; nothing follows from it about any job."""


@dataclass(frozen=True)
class Command:
    """What is to be run. `environment` None: that of all scheduler commands; given, it is the whole
    of it. `umask` None: the daemon's own."""

    argv: tuple[str, ...]
    stdin: str = ""
    environment: Optional[Mapping[str, str]] = None
    directory: str = "/"
    umask: Optional[int] = None


@dataclass(frozen=True)
class Output:
    """What a command that ended has left."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Submission:
    """One job to be submitted. `environment` is the job's whole environment."""

    tag: str
    directory: str
    resources: messages.Resources
    environment: Mapping[str, str]
    umask: int = 0o077
    may_requeue: bool = False


@dataclass(frozen=True)
class JobRef:
    """A job in the scheduler, named by both: a reused id is never mistaken."""

    tag: str
    scheduler_job_id: str


@dataclass(frozen=True)
class Usage:
    """What a job has used, as the accounting tells it."""

    elapsed_s: Optional[float] = None
    cpu_s: Optional[float] = None
    max_memory_mib: Optional[float] = None


@dataclass(frozen=True)
class Sighting:
    """What one good query says of one job. `words` is the scheduler's own state, raw.

    `is_exact` False: the exit code may lack 128, as Slurm's accounting tells it.
    `is_provisional`: the accounting may know another cause of this end.
    `knows_cancel`: the outcome is `cancelled` if, and only if, a cancel ended the job.
    `needs_action`: a queued job that waits for ever unless somebody acts, as `reason` says.
    `tasks`: so many of a job array it sums up, some of which may wait while others run; 0: none.
    """

    state: str
    run: int = 0
    outcome: str = ""
    exit_code: Optional[int] = None
    signal: Optional[int] = None
    reason: str = ""
    words: str = ""
    ended_at: float = 0.0
    is_exact: bool = True
    is_provisional: bool = False
    knows_cancel: bool = False
    needs_action: bool = False
    tasks: int = 0
    usage: Optional[Usage] = None

    @property
    def is_array(self) -> bool:
        return self.tasks > 0

    @property
    def may_be_a_duplicate(self) -> bool:
        """True if the claim must be asked whether this id ever was the job."""
        has_status = self.exit_code is not None or self.signal is not None
        is_ended = self.state == ENDED and (self.exit_code == 121 or not has_status)
        return is_ended or self.state == ABSENT


def sighting_of_exit(status: int, ended_at: float, words: str) -> Sighting:
    """The end that a wrapper's exit status tells.

    128 + N is how the wrapper, like a shell, writes the death by signal N.
    """
    if 128 < status <= 192:
        number = status - 128
        return Sighting(
            ENDED, outcome="failed", signal=number, reason=f"ended by signal {number}",
            words=words, ended_at=ended_at,
        )  # fmt: skip
    return Sighting(
        ENDED, outcome="failed" if status else "completed", exit_code=status,
        reason=f"ended with exit code {status}" if status else "", words=words, ended_at=ended_at,
    )  # fmt: skip


_SEVERITY = (
    "cancelled",  # it was cut short: what the others did says little
    "refused",
    "node_fail",
    "out_of_memory",
    "wall_time_exceeded",
    "preempted",
    "failed",
    "completed",
)


def array_sighting(tasks: Sequence[Sighting]) -> Sighting:
    """A job array as one job: it runs from its first task's start until its last task's end.

    Its exit code is the highest of its tasks, as `sbatch --wait` has it.
    Source: https://slurm.schedmd.com/sbatch.html, --wait
    """
    if any(task.state == UNKNOWN for task in tasks):
        unknown = next(task for task in tasks if task.state == UNKNOWN)
        return replace(unknown, tasks=len(tasks))
    is_started = any(task.state in (RUNNING, ENDED) for task in tasks)
    if not all(task.state == ENDED for task in tasks):
        # A task that runs speaks for all, else one that waits.
        chosen = min(
            (task for task in tasks if task.state != ENDED), key=lambda t: t.state != RUNNING
        )
        state = RUNNING if is_started else QUEUED
        return replace(chosen, state=state, run=0, tasks=len(tasks))
    return _ended_array(tasks)


def _ended_array(tasks: Sequence[Sighting]) -> Sighting:
    counts = Counter(task.outcome for task in tasks)
    outcome = min(counts, key=_SEVERITY.index)
    worst = max(
        (task for task in tasks if task.outcome == outcome),
        key=lambda task: (task.exit_code or 0, task.signal or 0),
    )
    told = ", ".join(f"{counts[word]} {word}" for word in _SEVERITY if counts[word])
    return replace(
        worst,
        run=0,
        reason="" if outcome == "completed" else f"of {len(tasks)} tasks: {told}",
        ended_at=max(task.ended_at for task in tasks),
        is_exact=all(task.is_exact for task in tasks),
        is_provisional=any(task.is_provisional for task in tasks),
        tasks=len(tasks),
    )


@dataclass(frozen=True)
class Accepted:
    scheduler_job_id: str


@dataclass(frozen=True)
class Refusal:
    """The scheduler certainly did not take the job; fields as in messages.Rejected."""

    reason: str
    message: str
    transient: bool


@dataclass(frozen=True)
class Unclear:
    """It may have taken the job: look it up before anything else.

    `if_absent`: what it comes to if a look-up finds nothing now; None: that may be too early.
    """

    message: str
    if_absent: Optional[Refusal] = None


@dataclass(frozen=True)
class Cancellation:
    """`was_alive` False: the scheduler says that there was nothing left to cancel."""

    was_alive: bool


@dataclass(frozen=True)
class Context:
    """What an adapter may know of its surroundings. `program` runs our own `local` command."""

    job_working_directory: str
    program: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


class Scheduler(Protocol):
    """One kind of batch scheduler."""

    name: str
    wrapper_identity: str
    """Lines of bash that set _w_id (what the claim holds), _w_task ("-" without an array) and
    _w_run (the restart count) on the compute node."""
    version: str
    """Of the scheduler; "" while it is not known."""

    def survey(self) -> tuple[Command, ...]:
        """What to ask the scheduler about itself, once; () if there is nothing to learn."""
        ...

    def learn(self, outputs: Sequence[Output]) -> None:
        """Keep what the answers to `survey` tell; raises QueryFailed."""
        ...

    def capabilities(self) -> messages.Capabilities: ...

    def objection(self, submit: messages.Submit) -> str:
        """Why this can't be asked of this scheduler, as a sentence; "" if it can."""
        ...

    def header(self, submit: messages.Submit) -> str:
        """The directive lines of the wrapper: those of the user's script that count."""
        ...

    def display_name(self, submit: messages.Submit) -> str:
        """What the script calls the job, or ""; to the scheduler its name is the tag."""
        ...

    def retry_at(self, intent_at: float, limit_s: float) -> float:
        """When a submission that left no trace may be tried again."""
        ...

    def claimed_id(self, text: str) -> str:
        """The scheduler job id in a claim's first line, "" if it is none: jobs write files too."""
        ...

    def submit(self, job: Submission) -> Command: ...

    def parse_submit(self, output: Output) -> Union[Accepted, Refusal, Unclear]: ...

    def queue(self, jobs: Sequence[JobRef]) -> Command:
        """One query for all `jobs`."""
        ...

    def parse_queue(self, output: Output, jobs: Sequence[JobRef]) -> dict[str, Sighting]:
        """Sightings of `jobs` by tag; raises QueryFailed."""
        ...

    def accounting(self, jobs: Sequence[JobRef]) -> Optional[Command]:
        """One query for jobs that the queue shows as ended or not at all; None: nothing to ask."""
        ...

    def parse_accounting(self, output: Output, jobs: Sequence[JobRef]) -> dict[str, Sighting]:
        """Those of `jobs` that have ended, by tag; raises QueryFailed."""
        ...

    def find(self, tag: str, since: float) -> tuple[Command, ...]:
        """Every place to look for `tag` in: all must be read with success."""
        ...

    def parse_find(self, tag: str, outputs: Sequence[Output]) -> tuple[str, ...]:
        """All scheduler job ids that carry `tag`; raises QueryFailed."""
        ...

    def cancel(self, job: JobRef, is_forced: bool) -> Command: ...

    def parse_cancel(self, output: Output) -> Cancellation:
        """Raises QueryFailed if it can't be told."""
        ...


_BUILT_IN = {
    "local": "cluster_client.schedulers.local:Local",
    "slurm": "cluster_client.schedulers.slurm:Slurm",
}


def create(name: str, context: Context) -> Scheduler:
    """The adapter called `name`, or of the class at `module:Class`; raises LookupError."""
    module_name, _, class_name = _BUILT_IN.get(name, name).replace(":", ".").rpartition(".")
    if not module_name:
        raise LookupError(
            f"There is no scheduler {name!r} here; known are {', '.join(sorted(_BUILT_IN))},"
            " or the path of a class as package.module:Class."
        )
    try:
        made = getattr(importlib.import_module(module_name), class_name)(context)
    except (ImportError, AttributeError, TypeError) as error:
        raise LookupError(f"The scheduler class {name!r} can't be used: {error}.") from error
    return made  # type: ignore[no-any-return]
