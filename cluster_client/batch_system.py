"""Runs an adapter's commands: environment, time limit, fence and counting in one place."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable, Optional, TypeVar, Union

from cluster_client import commands, errors, layout, schedulers
from cluster_client.environment import LoginEnvironment
from cluster_client.fence import Fence
from cluster_client.filesystem import Filesystem
from cluster_client.schedulers import Cancellation, Command, JobRef, Output, Sighting

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True)
class Found:
    """All that bears a tag. `scheduler_job_id` is the job ("": nothing was found), `others` are
    duplicates of it."""

    scheduler_job_id: str = ""
    others: tuple[str, ...] = ()


class BatchSystem:
    """Thread-safe. Query methods raise errors.CommandFailed: then nothing is known."""

    def __init__(
        self,
        scheduler: schedulers.Scheduler,
        environment: LoginEnvironment,
        fence: Fence,
        fs: Filesystem,
        job_working_directory: str,
        limit_s: float,
    ) -> None:
        self.scheduler = scheduler
        self._environment = environment
        self._fence = fence
        self._fs = fs
        self._root = job_working_directory
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()

    @property
    def calls(self) -> dict[str, int]:
        """How many commands of each kind have been run."""
        with self._lock:
            return dict(self._calls)

    def submit(
        self, job: schedulers.Submission, limit_s: float, on_start: Callable[[], None]
    ) -> Union[schedulers.Accepted, schedulers.Refusal, schedulers.Unclear]:
        self._fence.check()
        try:
            output, _ = self._run("submit", self.scheduler.submit(job), limit_s, on_start)
        except errors.CommandTimedOut as error:
            return schedulers.Unclear(str(error))
        except errors.CommandFailed as error:  # it was not even started
            return schedulers.Refusal("unavailable", str(error), transient=True)
        return self.scheduler.parse_submit(output)

    def queue(self, jobs: Sequence[JobRef]) -> tuple[dict[str, Sighting], float]:
        """What the scheduler says of `jobs`, by tag, and how long it took to say it."""
        output, took_s = self._run("queue", self.scheduler.queue(jobs), self._limit_s)
        return self._parsed(lambda: self.scheduler.parse_queue(output, jobs)), took_s

    def accounting(self, jobs: Sequence[JobRef]) -> Optional[dict[str, Sighting]]:
        """Those of `jobs` that the accounting knows as ended, by tag; None: there is none."""
        command = self.scheduler.accounting(jobs)
        if command is None:
            return None
        output, _ = self._run("accounting", command, self._limit_s)
        return self._parsed(lambda: self.scheduler.parse_accounting(output, jobs))

    def survey(self) -> None:
        """Let the adapter learn what the scheduler tells about itself."""
        wanted = self.scheduler.survey()
        outputs = [self._run("survey", command, self._limit_s)[0] for command in wanted]
        self._parsed(lambda: self.scheduler.learn(outputs))

    def look_up(self, tag: str, since: float) -> Found:
        """Everything with this tag, in the queue, the accounting and the claim."""
        wanted = self.scheduler.find(tag, since)
        outputs = [self._run("find", command, self._limit_s)[0] for command in wanted]
        ids = self._parsed(lambda: self.scheduler.parse_find(tag, outputs))
        claim = self.claim(tag)
        ordered = tuple(dict.fromkeys(filter(None, (claim, *ids))))
        return Found(ordered[0], ordered[1:]) if ordered else Found()

    def claim(self, tag: str) -> str:
        """The id that holds the job's claim, or ""; raises CommandFailed if it can't be read."""
        path = os.path.join(layout.control_of(os.path.join(self._root, tag)), "claim")
        try:
            data = self._fs.read(path, 4096)
        except OSError as error:
            raise errors.CommandFailed(f"{path} can't be read: {error}.") from error
        lines = (data or b"").decode("utf-8", "replace").splitlines()
        return self.scheduler.claimed_id(lines[0].rstrip()) if lines else ""

    def cancel(self, job: JobRef, is_forced: bool = False) -> Cancellation:
        self._fence.check()
        output, _ = self._run("cancel", self.scheduler.cancel(job, is_forced), self._limit_s)
        return self._parsed(lambda: self.scheduler.parse_cancel(output))

    def cancel_duplicates(self, tag: str, ids: Sequence[str]) -> None:
        """Every match of a look-up but the job itself; a failure leaves them to their claim."""
        for scheduler_job_id in ids:
            logger.warning("duplicate cancelled", extra={"tag": tag, "id": scheduler_job_id})
            try:
                self.cancel(JobRef(tag, scheduler_job_id))
            except errors.CommandFailed as error:
                logger.warning("duplicate not cancelled", extra={"tag": tag, "cause": str(error)})

    def _run(
        self,
        kind: str,
        command: Command,
        limit_s: float,
        on_start: Optional[Callable[[], None]] = None,
    ) -> tuple[Output, float]:
        with self._lock:
            self._calls[kind] += 1
        environment = self._environment.for_commands()
        finished = commands.run(
            command.argv,
            environment=environment if command.environment is None else command.environment,
            executable=commands.which(command.argv[0], environment),
            directory=command.directory,
            umask=command.umask,
            soft_limits=self._environment.limits_for_jobs() if kind == "submit" else {},
            limit_s=limit_s,
            stdin=command.stdin,
            on_start=on_start,
        )
        return Output(finished.returncode, finished.stdout, finished.stderr), finished.took_s

    @staticmethod
    def _parsed(parse: Callable[[], _T]) -> _T:
        try:
            return parse()
        except schedulers.QueryFailed as error:
            raise errors.CommandFailed(str(error)) from error
