"""A scheduler whose queue answers what a test has written down, one answer a query."""

from __future__ import annotations

import json
from pathlib import Path

from cluster_client import schedulers
from cluster_client.protocol import messages
from cluster_client.schedulers import Accepted, Cancellation, Command, QueryFailed, Sighting

CLASS = f"{__name__}:Scripted"

# Takes the next answer away, and fails when none is left.
_NEXT = 'cd "$1" && n=$(ls | sort -n | head -1) && cat "$n" && rm "$n"'


class Scripted:
    name = "scripted"
    version = ""
    wrapper_identity = "_w_id=77 _w_task=- _w_run=0"

    def __init__(self, context):
        self._answers = answers_of(context.job_working_directory)

    def survey(self):
        return ()

    def learn(self, outputs):
        pass

    def capabilities(self):
        return messages.Capabilities()

    def header(self, submit):
        return ""

    def display_name(self, submit):
        return ""

    def objection(self, submit):
        return ""

    def retry_at(self, intent_at, limit_s):
        return intent_at

    def claimed_id(self, text):
        return text if text.isdigit() else ""

    def submit(self, job):
        return Command(("/bin/echo", "77"))

    def parse_submit(self, output):
        return Accepted(output.stdout.strip())

    def queue(self, jobs):
        return Command(("/bin/sh", "-c", _NEXT, "sh", self._answers))

    def parse_queue(self, output, jobs):
        if output.returncode:
            raise QueryFailed("No answer.")
        return {tag: Sighting(state) for tag, state in json.loads(output.stdout).items()}

    def accounting(self, jobs):
        return None

    def parse_accounting(self, output, jobs):
        return {}

    def find(self, tag, since):
        return ()

    def parse_find(self, tag, outputs):
        return ()

    def cancel(self, job, is_forced):
        return Command(("/bin/true",))

    def parse_cancel(self, output):
        return Cancellation(was_alive=True)


def answers_of(job_working_directory):
    return str(Path(job_working_directory).with_name("answers"))


class Script:
    """The answers to come, by their numbers."""

    def __init__(self, engine, directory):
        self._engine = engine
        self._directory = directory
        self._number = 0
        directory.mkdir(exist_ok=True)

    def play(self, tag, *states, wait_until):
        """Let the queue answer so, in this order, then fail; ABSENT: without the job."""
        for state in states:
            self._number += 1
            answer = {} if state == schedulers.ABSENT else {tag: state}
            draft = self._directory.with_name("draft")
            draft.write_text(json.dumps(answer))
            draft.rename(self._directory / str(self._number))
        wait_until(lambda: not list(self._directory.iterdir()), what="the end of the script")
        calls = self._calls()
        wait_until(lambda: self._is_over() or self._calls() >= calls + 2, what="two more queries")

    def _calls(self):
        return self._engine.status()["commands"]["queue"]

    def _is_over(self):
        return set(self._engine.status()["jobs"]) == {"ended"}
