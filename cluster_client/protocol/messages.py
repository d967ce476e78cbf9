"""Every message that crosses a link, as frozen dataclasses; the page in docs is made from them.

Rules:
- A field that may be absent has a default; a field without one is required.
- Types are limited to what the codec knows: bool, int, float, str, Optional, tuple[T, ...],
  dict[str, str], another dataclass of this module, and Json (any JSON object).
- Fields are only ever added, with a default; receivers ignore fields they do not know.
- `tag` names a job on both ends: one letter and 14 base32 characters.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

VERSIONS = (1,)
"""Protocol versions spoken here, newest first; the newest two are kept."""

CONTROL_LIMIT_BYTES = 1 << 20
DATA_LIMIT_BYTES = 4 << 20
SCRIPT_LIMIT_BYTES = 480 << 10
"""Text doubles at most in JSON (quotes, backslashes, newlines), so that such a script fits a
control frame; one full of other control characters does not, and its encoding is refused."""

Json = dict[str, Any]

CONTROL = "control"
FILES = "files"


# Greeting ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hello:
    """First message of the server, and again over the same link when its lease was renewed late.

    Answered with Welcome or Refused. `cursor` is the last event that the server has committed
    of outbox `outbox_id`.
    """

    versions: tuple[int, ...]
    instance_id: str
    cluster_id: int
    purpose: str = CONTROL
    epoch: int = 0
    generation: int = 0
    outbox_id: str = ""
    cursor: int = 0


@dataclass(frozen=True)
class Capabilities:
    """What the batch scheduler can do; `resources` names the fields of Resources it understands."""

    resources: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    has_accounting: bool = False
    has_arrays: bool = False


@dataclass(frozen=True)
class Welcome:
    """The client's answer to Hello.

    `first_seq` and `last_seq` bound the events still in its outbox (last_seq = first_seq - 1:
    none). The client sends events only after the server's first Ack, from Ack.seq + 1.
    """

    version: int
    client_version: str
    host: str
    pid: int
    build_hash: str = ""
    scheduler: str = ""
    scheduler_version: str = ""
    scheduler_overruled: bool = False
    capabilities: Capabilities = field(default_factory=Capabilities)
    epoch: int = 0
    generation: int = 0
    outbox_id: str = ""
    first_seq: int = 1
    last_seq: int = 0
    last_death: str = ""


@dataclass(frozen=True)
class Refused:
    """The client's refusal of Hello, with the highest epoch and generation that it has seen.

    `code`: `stale_epoch`, `retired` (a newer generation took over), `wrong_instance`,
    `version_mismatch`.
    """

    code: str
    message: str
    epoch: int = 0
    generation: int = 0


@dataclass(frozen=True)
class Error:
    """An answer that says why the request failed. `transient`: the same request may work later."""

    code: str
    message: str
    transient: bool = False


@dataclass(frozen=True)
class Done:
    """The request was carried out, or durably noted so that it will be."""


# Jobs -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resources:
    """What a job asks of the scheduler; None means the site's default."""

    nodes: Optional[int] = None
    tasks: Optional[int] = None
    cpus_per_task: Optional[int] = None
    memory_mib: Optional[int] = None
    walltime_s: Optional[int] = None
    partition: Optional[str] = None
    account: Optional[str] = None
    qos: Optional[str] = None


@dataclass(frozen=True)
class Submit:
    """Submit the job, or say what became of it: asking again by the same tag is always safe.

    `attempt` counts the sends of this job, from 1. Answered with Submitted, Rejected or Error.
    """

    tag: str
    attempt: int
    script: str
    script_sha256: str
    name: str = ""
    limit_s: float = 60.0
    resources: Resources = field(default_factory=Resources)
    environment: dict[str, str] = field(default_factory=dict)
    may_requeue: bool = False


@dataclass(frozen=True)
class Submitted:
    tag: str
    scheduler_job_id: str


@dataclass(frozen=True)
class Rejected:
    """The job is certainly not in the scheduler.

    `reason` is a word of the adapter (`limits`, `busy`, `unavailable`, `no_space`,
    `invalid_request`, `cancelled`, `unknown`), `message` the scheduler's own words.
    """

    tag: str
    reason: str
    message: str
    transient: bool


@dataclass(frozen=True)
class Cancel:
    """Cancel by tag, and by id where it is known. Answered with Done; the end comes as an event."""

    tag: str
    scheduler_job_id: str = ""


@dataclass(frozen=True)
class Delete:
    """Remove the job's directory. Answered with Deleted."""

    tag: str


@dataclass(frozen=True)
class Deleted:
    """`is_complete` is False after one bounded slice of a large tree (ask again), or when
    `remaining` names what can't be removed (at most 20 relative paths, with the cause)."""

    tag: str
    is_complete: bool
    remaining: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compare:
    """The tags that the server holds open, asked on each link-up. Answered with Compared."""

    tags: tuple[str, ...]


@dataclass(frozen=True)
class JobState:
    """A job as the daemon knows it.

    `state`: `submitting`, `submitted`, `queued`, `running`, `ended`, `rejected`. For `ended`,
    `outcome` and what follows are as in the data of an `ended` event.
    """

    tag: str
    state: str
    scheduler_job_id: str = ""
    run: int = 0
    outcome: str = ""
    exit_code: Optional[int] = None
    signal: Optional[int] = None
    reason: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class Compared:
    """`jobs`: those asked for that the daemon knows. `unknown`: those it does not.

    `extra`: tags that it holds open and the server did not name.
    """

    jobs: tuple[JobState, ...] = ()
    unknown: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    """A numbered entry of the daemon's outbox; unanswered, acknowledged by Ack.

    `kind` and `data`:
    - `submitted`: scheduler_job_id, name (what the script calls the job, if it does)
    - `queued`: reason (the scheduler's hold reason, may be ""), needs_action (true: it waits for
      ever unless somebody does what the reason says)
    - `running`
    - `ended`: outcome (`completed`, `failed`, `cancelled`, `wall_time_exceeded`,
      `out_of_memory`, `node_fail`, `preempted`, `refused`), exit_code, signal, reason,
      scheduler_state
    - `rejected`: reason, message, transient (a submission that was in flight when asked)
    - `accounting`: elapsed_s, cpu_s, max_memory_mib
    - `blocked`: reason, message (the daemon can't tell or can't go on; `no_evidence`, ...)

    `run` is the restart count (0 first). `at` is the daemon's clock, seconds since the epoch.
    """

    outbox_id: str
    seq: int
    tag: str
    run: int
    kind: str
    at: float
    data: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Ack:
    """All events of `outbox_id` up to and including `seq` are committed by the server."""

    outbox_id: str
    seq: int


@dataclass(frozen=True)
class Polled:
    """A notice after a good status query: `open_jobs` were looked up at `at`, in `took_s`."""

    at: float
    took_s: float
    open_jobs: int
    queries: int = 0


# Files ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """`type`: `file`, `directory`, `link`, `other`. `name` is lossy, `name_b64` exact."""

    name: str
    name_b64: str
    type: str
    size_bytes: int
    mtime: float
    target: str = ""


@dataclass(frozen=True)
class List:
    """One directory of a job, sorted by name; at most `limit` entries after name `after_b64`."""

    tag: str
    path: str = ""
    after_b64: str = ""
    limit: int = 1000


@dataclass(frozen=True)
class Listed:
    entries: tuple[Entry, ...]
    is_complete: bool


@dataclass(frozen=True)
class Stat:
    tag: str
    path: str = ""


@dataclass(frozen=True)
class Stated:
    entry: Entry


@dataclass(frozen=True)
class Open:
    """Read `length` bytes from `offset` (-1: to the end). Opened, binary frames, then End.

    `chunk_bytes`: how large the frames are, 1 KiB to just below 4 MiB.
    """

    transfer: str
    attempt: int
    tag: str
    path: str
    offset: int = 0
    length: int = -1
    chunk_bytes: int = 1 << 20


@dataclass(frozen=True)
class Opened:
    size_bytes: int
    etag: str


@dataclass(frozen=True)
class End:
    """Sent last: `bytes_sent` of this transfer, and their sha256. A stream without it failed.

    `problem` says why fewer bytes came than were announced ("" if none are missing). Between Put
    and Finish the client sends it too, at once when it can't keep what comes: the rest of the bytes
    may be spared, and Finish will be answered with Error.
    """

    bytes_sent: int
    sha256: str
    problem: str = ""


@dataclass(frozen=True)
class Put:
    """Write a file of `size_bytes` at `path`, in place of what file is there.

    Answered with Ready or Error; then the server sends binary frames, and Finish. Until that is
    answered the bytes are in a file of a temporary name in the same directory. Any other request
    in between gives the upload up.
    """

    transfer: str
    tag: str
    path: str
    size_bytes: int


@dataclass(frozen=True)
class Ready:
    """The temporary file is open: the bytes may come."""


@dataclass(frozen=True)
class Finish:
    """All was sent. Answered with Stored, after fsync and rename, or with Error and no trace.

    Codes of Error: `damaged` (size or checksum differ), `no_space` (disk or quota), `not_stored`,
    `path_refused`, `invalid_request` (no upload is under way).
    """

    bytes_sent: int
    sha256: str


@dataclass(frozen=True)
class Stored:
    size_bytes: int
    etag: str
