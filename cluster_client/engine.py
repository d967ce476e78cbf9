"""The engine of the daemon: what it does with jobs, whoever is connected.

The front (server, handlers) owns sockets and links; it calls the engine from its own threads.
All methods are thread-safe. Life: Engine(settings) -> start() -> ... -> stop().
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Optional, Protocol, Union

from cluster_client import environment, errors, faults, removal, schedulers, validation
from cluster_client.batch_system import BatchSystem
from cluster_client.environment import LoginEnvironment
from cluster_client.fence import Fence
from cluster_client.filesystem import Filesystem
from cluster_client.job_directory import JobDirectories
from cluster_client.job_records import (
    ENDED,
    REJECTED,
    SUBMITTED,
    Change,
    JobRecord,
    NewEvent,
)
from cluster_client.job_store import JobStore
from cluster_client.protocol import messages
from cluster_client.submission import Submitter
from cluster_client.watcher import Intervals, Watcher

logger = logging.getLogger(__name__)

_LOGIN_LIMIT_S = 10.0


class EngineSettings(Protocol):
    """What the engine reads of configuration.Settings."""

    @property
    def state_directory(self) -> str: ...
    @property
    def job_working_directory(self) -> str: ...
    @property
    def scheduler(self) -> str: ...
    @property
    def poll_interval_s(self) -> float: ...
    @property
    def poll_interval_idle_s(self) -> float: ...
    @property
    def hint_interval_s(self) -> float: ...
    @property
    def submit_parallel(self) -> int: ...
    @property
    def command_limit_s(self) -> float: ...
    @property
    def lost_after_s(self) -> float: ...
    @property
    def fault_point(self) -> str: ...
    @property
    def umask(self) -> int: ...
    @property
    def group(self) -> str: ...
    @property
    def setup_commands(self) -> str: ...
    @property
    def instance_id(self) -> str: ...
    @property
    def cluster_id(self) -> int: ...
    @property
    def generation(self) -> int: ...


@dataclass(frozen=True)
class Identity:
    """What the front knows about this installation and the greeting tells the server."""

    client_version: str = ""
    build_hash: str = ""
    scheduler_overruled: bool = False
    last_death: str = ""


class Engine:
    """Submits, watches, cancels, deletes and reports; one per state directory and generation.

    `settings` is configuration.Settings; `login` and `fs` are replaced by tests alone.
    """

    def __init__(
        self,
        settings: EngineSettings,
        identity: Identity = Identity(),
        *,
        login: Optional[LoginEnvironment] = None,
        fs: Optional[Filesystem] = None,
    ) -> None:
        self.is_retired = threading.Event()
        """Set once a newer generation has taken over: the daemon must end; its jobs go on."""
        self._settings = settings
        self._identity = identity
        self._fs = fs or Filesystem()
        self._started_at = time.time()
        self._is_stopped = False
        self._login = login or LoginEnvironment(
            lambda: environment.login_environment(settings.setup_commands, _LOGIN_LIMIT_S)
        )
        state = settings.state_directory
        self._hints = os.path.join(state, "hints")
        self._fence = Fence(self._fs, state, settings.generation)
        self._store = JobStore(self._fs, state, settings.generation, guard=self._fence.check)
        self._scheduler = self._make_scheduler()
        self._batch = BatchSystem(
            self._scheduler,
            self._login,
            self._fence,
            self._fs,
            settings.job_working_directory,
            settings.command_limit_s,
        )
        self._submitter = self._make_submitter()
        self._watcher = self._make_watcher()
        self._greeting_lock = threading.Lock()

    def _make_scheduler(self) -> schedulers.Scheduler:
        context = schedulers.Context(self._settings.job_working_directory, program=_own_program())
        try:
            return schedulers.create(self._settings.scheduler, context)
        except LookupError as error:
            raise errors.SettingsError(f"HPC_SCHEDULER_CLASS: {error}") from error

    def _make_submitter(self) -> Submitter:
        settings = self._settings
        directories = JobDirectories(
            self._fs, settings.job_working_directory, settings.umask, settings.group
        )
        return Submitter(
            self._store,
            self._batch,
            self._login,
            directories,
            self._hints,
            parallel=settings.submit_parallel,
            on_change=self.nudge,
        )

    def _make_watcher(self) -> Watcher:
        settings = self._settings
        return Watcher(
            self._store,
            self._batch,
            self._submitter,
            self._fence,
            self._fs,
            settings.job_working_directory,
            self._hints,
            Intervals(
                settings.poll_interval_s,
                settings.poll_interval_idle_s,
                settings.hint_interval_s,
                settings.lost_after_s,
            ),
            on_fenced=self._retire,
        )

    # Life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Take the fence, load the store, begin to watch. Returns quickly (no scheduler call).

        Raises errors.Fenced if a newer generation holds the state directory, errors.NotStored
        if the state directory can't be written, errors.SettingsError for a bad fault point.
        """
        faults.configure(self._settings.fault_point)
        self._fs.make_directory(self._settings.state_directory)
        self._fs.make_directory(self._hints)
        self._fence.take()
        self._store.load()
        self._login.start()
        self._watcher.start()

    def stop(self, drain_s: float = 10.0) -> None:
        """Let submissions in flight reach a stored point, then end all threads. Idempotent."""
        if self._is_stopped:
            return
        self._is_stopped = True
        if not self._submitter.drain(drain_s):
            logger.warning("submissions cut off; they will be looked up")
        self._watcher.stop(drain_s)
        self._store.close()
        self._store.wake()

    def _retire(self, error: errors.Fenced) -> None:
        if not self.is_retired.is_set():
            logger.warning("retired", extra={"cause": str(error)})
            self.is_retired.set()
            self._store.wake()

    # The server's greeting and the events ---------------------------------------------------

    def welcome(self, hello: messages.Hello) -> Union[messages.Welcome, messages.Refused]:
        """Judge a greeting: instance, generation, epoch (the highest is stored).

        On Welcome, the front must drop every older control link (their epoch is lower or
        the same link greets again). Raises errors.NotStored if the epoch can't be stored.
        """
        with self._greeting_lock:
            refused = self._refusal(hello)
            if refused is not None:
                return refused
            self._store.record_epoch(hello.epoch)
            if hello.outbox_id == self._store.outbox_id and not (
                self._store.first_seq - 1 <= hello.cursor <= self._store.last_seq
            ):
                logger.warning(
                    "cursor does not fit the outbox, which is numbered anew",
                    extra={"cursor": hello.cursor, "first_seq": self._store.first_seq},
                )
                self._store.renew_outbox()
            return self._welcome(hello)

    def _refusal(self, hello: messages.Hello) -> Optional[messages.Refused]:
        settings = self._settings
        code, text = "", ""
        try:
            self._fence.check()
        except errors.Fenced as error:
            self._retire(error)
            return self._refused("retired", str(error), error.generation)
        if (hello.instance_id, hello.cluster_id) != (settings.instance_id, settings.cluster_id):
            code = "wrong_instance"
            text = (
                f"This daemon serves {settings.instance_id}.{settings.cluster_id},"
                f" not {hello.instance_id}.{hello.cluster_id}."
            )
        elif not set(hello.versions) & set(messages.VERSIONS):
            code = "version_mismatch"
            text = f"This client speaks protocol versions {messages.VERSIONS}: bootstrap it anew."
        elif hello.epoch < self._store.epoch:
            code = "stale_epoch"
            text = f"Epoch {hello.epoch} is older than {self._store.epoch}, which was seen here."
        elif hello.generation > settings.generation:
            code = "retired"
            text = (
                f"This daemon is generation {settings.generation}; the server has issued"
                f" {hello.generation}."
            )
        return self._refused(code, text) if code else None

    def _refused(self, code: str, message: str, generation: int = 0) -> messages.Refused:
        highest = max(generation, self._settings.generation)
        return messages.Refused(code, message, epoch=self._store.epoch, generation=highest)

    def _welcome(self, hello: messages.Hello) -> messages.Welcome:
        return messages.Welcome(
            version=max(set(hello.versions) & set(messages.VERSIONS)),
            client_version=self._identity.client_version,
            host=socket.gethostname(),
            pid=os.getpid(),
            build_hash=self._identity.build_hash,
            scheduler=self._scheduler.name,
            scheduler_overruled=self._identity.scheduler_overruled,
            capabilities=self._scheduler.capabilities(),
            epoch=self._store.epoch,
            generation=self._settings.generation,
            outbox_id=self._store.outbox_id,
            first_seq=self._store.first_seq,
            last_seq=self._store.last_seq,
            last_death=self._identity.last_death,
        )

    def events_after(self, seq: int, limit: int = 100) -> list[messages.Event]:
        """The unacknowledged events numbered above `seq`, in order; [] once retired."""
        return [] if self.is_retired.is_set() else self._store.events_after(seq, limit)

    def wait_for_events(self, after_seq: int, timeout_s: float) -> bool:
        """True as soon as an event above `after_seq` exists; False after the time."""
        return self._store.wait_for_events(after_seq, timeout_s)

    def wake(self) -> None:
        """Let every thread in wait_for_events return early (a link was closed)."""
        self._store.wake()

    def acknowledge(self, ack: messages.Ack) -> bool:
        """Note durably what the server has committed; False for a foreign outbox."""
        if ack.outbox_id != self._store.outbox_id:
            logger.warning("acknowledgement of another outbox", extra={"outbox_id": ack.outbox_id})
            return False
        self._store.acknowledge(ack.seq)
        return True

    @property
    def last_poll(self) -> Optional[messages.Polled]:
        """The newest good status query; a new object each time (compare by `at`)."""
        return self._watcher.last_poll

    def nudge(self) -> None:
        """Look at the hints now, not at the next tick."""
        self._watcher.nudge()

    def status(self) -> dict[str, Any]:
        """For `client.py status` and the log: counts of jobs by state, events, commands run."""
        jobs = self._store.jobs.values()
        poll = self.last_poll
        return {
            "generation": self._settings.generation,
            "epoch": self._store.epoch,
            "outbox_id": self._store.outbox_id,
            "scheduler": self._scheduler.name,
            "started_at": self._started_at,
            "jobs": dict(Counter(record.state for record in jobs)),
            "unacknowledged_events": self._store.last_seq - self._store.first_seq + 1,
            "tombstones": len(self._store.tombstones),
            "commands": self._batch.calls,
            "last_poll_at": poll.at if poll else 0.0,
            "last_poll_took_s": poll.took_s if poll else 0.0,
            "is_retired": self.is_retired.is_set(),
        }

    # Requests -------------------------------------------------------------------------------

    def handle(self, message: object) -> object:
        """Answer one request: Submit, Cancel, Delete or Compare; blocks, raises nothing.

        A Submit may take as long as its limit_s plus a look-up. Any other message is answered
        with Error(code="unknown_message").
        """
        try:
            if self.is_retired.is_set():
                return messages.Error("retired", "A newer generation has taken over.", True)
            return self._handle(message)
        except errors.Fenced as error:
            self._retire(error)
            return messages.Error("retired", str(error), transient=True)
        except errors.NotStored as error:
            return messages.Error(error.reason, str(error), transient=True)
        except errors.ClientError as error:
            return messages.Error(error.code, str(error), error.transient)
        except Exception:
            logger.exception("request failed", extra={"message_type": type(message).__name__})
            text = "The cluster client failed; its log on the cluster says why."
            return messages.Error("internal", text, transient=True)

    def _handle(self, message: object) -> object:
        if isinstance(message, messages.Submit):
            return self._submitter.submit(message)
        if isinstance(message, messages.Cancel):
            return self._cancel(message)
        if isinstance(message, messages.Delete):
            return self._delete(message)
        if isinstance(message, messages.Compare):
            return self._compare(message)
        return messages.Error("unknown_message", f"{type(message).__name__} is no request.")

    def _cancel(self, message: messages.Cancel) -> object:
        """Note durably that the job is to be cancelled; the watcher does it."""
        tag = validation.tag(message.tag)
        found = ""
        if self._store.get(tag) is None:
            found = message.scheduler_job_id or self._batch.look_up(tag, 0.0).scheduler_job_id
        self._store.update(tag, lambda record: _with_cancel(record, tag, found))
        self._watcher.nudge()
        return messages.Done()

    def _delete(self, message: messages.Delete) -> object:
        tag = validation.tag(message.tag)
        root = self._settings.job_working_directory
        record = self._store.get(tag)
        claim = removal.claim_of(root, tag)
        if record is not None and not record.is_final:
            return messages.Error("not_ended", f"Job {tag} has not ended: cancel it first.", True)
        if record is None and claim is not None:
            # The store is new: only what names this tag, and runs no more, may go.
            if not claim:
                raise errors.PathRefused(
                    f"{os.path.join(root, tag)} holds no claim and is not known here: remove it"
                    " by hand."
                )
            view = self._batch.queue([schedulers.JobRef(tag, claim)])[0].get(tag)
            if view is not None and view.state not in (schedulers.ENDED, schedulers.ABSENT):
                return messages.Error("not_ended", f"Job {tag} still runs as {claim}.", True)
        if record is not None and claim and record.scheduler_job_id not in ("", claim):
            raise errors.PathRefused(f"{os.path.join(root, tag)} is claimed by {claim}.")
        return removal.remove(root, tag)

    def _compare(self, message: messages.Compare) -> messages.Compared:
        asked = [validation.tag(tag) for tag in message.tags]
        known = [(tag, self._store.get(tag)) for tag in asked]
        open_tags = {tag for tag, record in self._store.jobs.items() if not record.is_final}
        return messages.Compared(
            jobs=tuple(_state_of(record) for _, record in known if record is not None),
            unknown=tuple(tag for tag, record in known if record is None),
            extra=tuple(sorted(open_tags.difference(asked))),
        )


def _with_cancel(record: Optional[JobRecord], tag: str, found: str) -> Optional[Change]:
    """The job with its cancel noted; one that was never submitted ends here."""
    now = time.time()
    if record is None and found:
        submitted = JobRecord(tag, state=SUBMITTED, scheduler_job_id=found, submitted_at=now)
        return Change(replace(submitted, cancel_requested_at=now))
    if record is None or record.state == REJECTED:
        text = "The job was cancelled before it was submitted."
        rejected = replace(
            record or JobRecord(tag), state=REJECTED, reason="cancelled", message=text,
            is_transient=False, cancel_requested_at=now, acknowledged_at=0.0,
        )  # fmt: skip
        data = {"reason": "cancelled", "message": text, "transient": False}
        return Change(rejected, (NewEvent("rejected", data),))
    if record.state == ENDED or record.cancel_requested_at:
        return None
    return Change(replace(record, cancel_requested_at=now))


def _state_of(record: JobRecord) -> messages.JobState:
    return messages.JobState(
        tag=record.tag,
        state=record.state,
        scheduler_job_id=record.scheduler_job_id,
        run=record.run,
        outcome=record.outcome,
        exit_code=record.exit_code,
        signal=record.signal,
        reason=record.reason,
        at=record.at,
    )


def _own_program() -> tuple[str, ...]:
    """How our own `local` command is run: the fastest start of this very installation.

    -S: no site-packages, -E: no PYTHON* variables; neither is needed by local_jobs.
    """
    parent = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    code = (
        f"import sys; sys.path.insert(0, {parent!r}); from cluster_client import local_jobs;"
        " sys.exit(local_jobs.main(sys.argv[2:]))"
    )
    return (sys.executable, "-S", "-E", "-c", code)
