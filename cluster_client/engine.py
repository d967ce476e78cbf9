"""The engine of the daemon: what it does with jobs, whoever is connected.

The front (server, handlers) owns sockets and links; it calls the engine from its own threads.
All methods are thread-safe. Life: Engine(settings) -> start() -> ... -> stop().
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import Counter
from typing import Any, Optional, Protocol, Union

from cluster_client import environment, errors, faults, schedulers, sources
from cluster_client.batch_system import BatchSystem
from cluster_client.environment import LoginEnvironment
from cluster_client.fence import Fence
from cluster_client.filesystem import Filesystem
from cluster_client.greeting import Address, Greeter, Identity
from cluster_client.job_directory import JobDirectories
from cluster_client.job_requests import JobRequests
from cluster_client.job_store import JobStore
from cluster_client.protocol import messages
from cluster_client.submission import Submitter
from cluster_client.watcher import Intervals, Watcher

logger = logging.getLogger(__name__)

_SURVEY_PAUSE_S = 60.0
_GREETING_WAIT_S = 2.0


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
    def login_limit_s(self) -> float: ...
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


class Engine:
    """Submits, watches, cancels, deletes and reports; one per state directory and generation.

    `settings` is configuration.Settings; `login` and `fs` are replaced by tests alone.
    """

    def __init__(
        self,
        settings: EngineSettings,
        identity: Optional[Identity] = None,
        *,
        login: Optional[LoginEnvironment] = None,
        fs: Optional[Filesystem] = None,
    ) -> None:
        self.is_retired = threading.Event()
        """Set once a newer generation has taken over: the daemon must end; its jobs go on."""
        self._settings = settings
        self._fs = fs or Filesystem()
        self._started_at = time.time()
        self._is_stopped = False
        self._login = login or _login_of(settings)
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
        self._greeter = self._make_greeter(identity or Identity())
        self._requests = JobRequests(
            self._store,
            self._batch,
            self._submitter,
            settings.job_working_directory,
            self._watcher,
        )
        self._is_surveyed = threading.Event()
        self._is_stopping = threading.Event()

    def _make_scheduler(self) -> schedulers.Scheduler:
        context = schedulers.Context(self._settings.job_working_directory, program=_own_program())
        try:
            return schedulers.create(self._settings.scheduler, context)
        except LookupError as error:
            raise errors.SettingsError(f"HPC_SCHEDULER_CLASS: {error}") from error

    def _make_greeter(self, identity: Identity) -> Greeter:
        settings = self._settings
        address = Address(settings.instance_id, settings.cluster_id, settings.generation)
        return Greeter(address, identity, self._store, self._fence, self._scheduler)

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
        threading.Thread(target=self._survey, name="survey", daemon=True).start()

    def _survey(self) -> None:
        """Learn what the scheduler tells about itself; tried again while it does not answer."""
        while not self._is_stopping.is_set():
            try:
                self._batch.survey()
                self._is_surveyed.set()
                return
            except errors.ClientError as error:
                logger.warning("the scheduler can't be surveyed", extra={"cause": str(error)})
                self._is_stopping.wait(_SURVEY_PAUSE_S)

    def stop(self, drain_s: float = 10.0) -> None:
        """Let submissions in flight reach a stored point, then end all threads. Idempotent."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self._is_stopping.set()
        if not self._submitter.drain(drain_s):
            logger.warning("submissions cut off; they will be looked up")
        self._watcher.stop(drain_s)
        self._login.stop()
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
        # A greeting before the survey's answer would tell less than is known soon.
        self._is_surveyed.wait(_GREETING_WAIT_S)
        try:
            return self._greeter.judge(hello)
        except errors.Fenced as error:
            self._retire(error)
            return self._greeter.refused("retired", str(error), error.generation)

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
            "login_environment": self._login.state,
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
            return self._requests.answer(message)
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


def _login_of(settings: EngineSettings) -> LoginEnvironment:
    """Where set-up commands are asked for, nothing may run without them."""
    who = environment.account()

    def read() -> environment.Login:
        return environment.fresh_login(settings.setup_commands, settings.login_limit_s, who)

    def minimal() -> environment.Login:
        return environment.Login(environment.minimal(who))

    is_needed = bool(settings.setup_commands.strip())
    return LoginEnvironment(read, None if is_needed else minimal)


def _own_program() -> tuple[str, ...]:
    """How this very installation is run, without site-packages and PYTHON* variables.

    client.py dispatches `local` before it imports anything.
    """
    return (sys.executable, "-I", "-S", sources.program())


__all__ = ["Engine", "EngineSettings", "Identity"]
