"""The `local` scheduler: plain processes on this host, through our own `client.py local` command.

It understands no resources, and keeps no queue: a job runs from its submission on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Optional, Union

from cluster_client.protocol import messages
from cluster_client.schedulers import (
    ENDED,
    RUNNING,
    UNKNOWN,
    Accepted,
    Cancellation,
    Command,
    Context,
    JobRef,
    Output,
    QueryFailed,
    Refusal,
    Sighting,
    Submission,
    Unclear,
    sighting_of_exit,
)

REFUSED_STATUS = 3
"""`local submit` ends so when it is certain that nothing was started."""

IMPOSSIBLE_STATUS = 4
"""The same, and trying again is no use: the environment is too large."""

_ID = re.compile(r"local:\d+\.\d+\.[0-9a-f-]{36}")
_WORDS_LIMIT = 500
_VANISHED = "the process vanished without an exit record (reboot, or killed with its wrapper)"
_STATES = {"running": RUNNING, "ended": ENDED, "gone": ENDED, "refused": ENDED, "unknown": UNKNOWN}


class Local:
    name = "local"
    # Field 22 of /proc/PID/stat is the start time; the name in field 2 may hold spaces and
    # parentheses, so count from behind the last ")". Source: proc_pid_stat(5).
    wrapper_identity = """\
IFS= read -r _w_line </proc/$$/stat; _w_fields=(${_w_line##*) })
read -r _w_boot </proc/sys/kernel/random/boot_id
_w_id=local:$$.${_w_fields[19]}.$_w_boot _w_task=- _w_run=0"""

    def __init__(self, context: Context) -> None:
        self._program = (*context.program, "local")
        self._root = context.job_working_directory

    version = ""

    def survey(self) -> tuple[Command, ...]:
        return ()

    def learn(self, outputs: Sequence[Output]) -> None:
        pass

    def capabilities(self) -> messages.Capabilities:
        return messages.Capabilities()

    def objection(self, submit: messages.Submit) -> str:
        asked = [name for name, value in submit.resources.__dict__.items() if value is not None]
        if not asked:
            return ""
        return (
            f"The local scheduler knows no resources, but the job asks for {', '.join(asked)}:"
            " leave them out, or choose a cluster with a batch scheduler."
        )

    def header(self, submit: messages.Submit) -> str:
        return ""

    def display_name(self, submit: messages.Submit) -> str:
        return ""

    def retry_at(self, intent_at: float, limit_s: float) -> float:
        # The submit command died with the daemon and its wrapper is found by its argv; one that
        # was about to start meets the other one's claim, and ends with 121.
        return intent_at + 1.0

    def claimed_id(self, text: str) -> str:
        return text if _ID.fullmatch(text) else ""

    def submit(self, job: Submission) -> Command:
        document = {
            "tag": job.tag,
            "directory": job.directory,
            "environment": dict(job.environment),
            "umask": job.umask,
        }
        return Command((*self._program, "submit", job.tag), json.dumps(document))

    def parse_submit(self, output: Output) -> Union[Accepted, Refusal, Unclear]:
        words = output.stdout.split()
        if output.returncode == 0 and len(words) == 1 and _ID.fullmatch(words[0]):
            return Accepted(words[0])
        message = output.stderr.strip() or f"local submit ended with {output.returncode}"
        if output.returncode == IMPOSSIBLE_STATUS:
            return Refusal("invalid_request", message, transient=False)
        if output.returncode == REFUSED_STATUS:
            return Refusal("unavailable", message, transient=True)
        return Unclear(message)

    def queue(self, jobs: Sequence[JobRef]) -> Command:
        lines = "".join(f"{job.tag} {job.scheduler_job_id}\n" for job in jobs)
        return Command((*self._program, "queue", self._root), lines)

    def parse_queue(self, output: Output, jobs: Sequence[JobRef]) -> dict[str, Sighting]:
        sightings: dict[str, Sighting] = {}
        for line in _trusted_lines(output):
            try:
                tag, state, text = line.split(" ", 2)
                record = json.loads(text)
            except ValueError as error:
                raise QueryFailed(f"local queue printed {line[:200]!r}: {error}") from error
            sightings[tag] = _sighting(state, record)
        return sightings

    def accounting(self, jobs: Sequence[JobRef]) -> Optional[Command]:
        return None  # the exit records are the accounting, and `queue` reads them

    def parse_accounting(self, output: Output, jobs: Sequence[JobRef]) -> dict[str, Sighting]:
        return {}

    def find(self, tag: str, since: float) -> tuple[Command, ...]:
        return (Command((*self._program, "find", self._root, tag)),)

    def parse_find(self, tag: str, outputs: Sequence[Output]) -> tuple[str, ...]:
        found = [line for output in outputs for line in _trusted_lines(output)]
        return tuple(dict.fromkeys(found))

    def cancel(self, job: JobRef, is_forced: bool) -> Command:
        verb = "kill" if is_forced else "cancel"
        return Command((*self._program, verb, self._root, job.tag, job.scheduler_job_id))

    def parse_cancel(self, output: Output) -> Cancellation:
        lines = _trusted_lines(output)
        if lines == ["signalled"]:
            return Cancellation(was_alive=True)
        if lines == ["gone"]:
            return Cancellation(was_alive=False)
        raise QueryFailed(f"local cancel printed {lines!r:.200}")


def _trusted_lines(output: Output) -> list[str]:
    """The lines before the closing "end" line; a text without it was cut."""
    lines = output.stdout.splitlines()
    if output.returncode != 0 or not lines or lines.pop() != "end":
        words = output.stderr.strip() or f"status {output.returncode}"
        raise QueryFailed(f"the local command failed: {words[:500]}")
    return lines


def _sighting(state: str, record: dict[str, Any]) -> Sighting:
    """A record lies in the job's directory, where the job may have spoilt it: then it says nothing
    of this job, and the others are heard all the same."""
    known = _STATES.get(state, UNKNOWN)
    words = str(record.get("words", ""))[:_WORDS_LIMIT]
    if known != ENDED:
        return Sighting(known, words=state, reason=words)
    if state == "gone":
        return Sighting(ENDED, outcome="failed", reason=_VANISHED, words=state)
    try:
        ended_at = float(record.get("end", 0))
        if state == "refused":
            return Sighting(
                ENDED, outcome="refused", exit_code=122, reason=words, words=state,
                ended_at=ended_at,
            )  # fmt: skip
        return sighting_of_exit(int(record["exit"]), ended_at, words=state)
    except (KeyError, TypeError, ValueError, OverflowError):
        return Sighting(UNKNOWN, words=state, reason="its exit record can't be read")
