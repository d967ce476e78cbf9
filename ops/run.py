"""`make run`: the stack with its data in var/, kept up until someone stops it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ops import demo, environment, errors, first_admin, interruption, stack

WEB_PORT = 8000
FLOWER_PORT = 5555
LONGEST_PAUSE_S = 30.0
# A program that ran so long starts again at once the next time it ends.
GOOD_RUN_S = 60.0
STEP_S = 1.0
SOCKETS_PREFIX = "hpc-run-"


def main(asked: interruption.Interruption) -> int:
    """Keep the stack up until asked to stop, and stop it."""
    state = Path(os.environ.get("HPC_DATA_DIRECTORY") or stack.CHECKOUT / "var").absolute()
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with only_one(state):
        own = read_environment(state / "env")
        sockets = stack.temporary_directory(SOCKETS_PREFIX)
        parts = stack.programs(WEB_PORT, FLOWER_PORT)
        try:
            keep(stack.Stack(state, sockets, own, parts, asked), asked)
        finally:
            shutil.rmtree(sockets)
    return 0


def keep(a_stack: stack.Stack, asked: interruption.Interruption) -> None:
    """Start the stack, tell where it is, restart what ends, stop it when asked to."""
    try:
        stack.say(f"Starting; the data is in {a_stack.state}, the logs in {a_stack.log_directory}.")
        if os.geteuid() == 0:
            stack.say("You are root: this stack allows root (HPC_ALLOW_ROOT=1), for itself alone.")
        a_stack.start()
        password = a_stack.run("ops.first_admin")
        if not json.loads(a_stack.manage("hpc", "cluster", "list", "--json")):
            demo.register_cluster(a_stack)
        stack.say(addresses(a_stack, password))
        supervise(a_stack, asked)
    except interruption.Stopped:
        stack.say("Stopping; jobs that run go on, and are followed again at the next start.")
    finally:
        left = a_stack.stop(with_jobs=False)
    if left:
        raise errors.OpsError(f"This could not be stopped: {', '.join(left)}.")
    stack.say("Stopped.")


def addresses(a_stack: stack.Stack, password: str) -> str:
    """What someone needs to know to use the stack; the password only if it is a new one."""
    file = a_stack.state / "env"
    account = f"log in as {first_admin.NAME}"
    if password:
        account += f" with the password {password} (shown this once)"
    lines = [
        f"Admin:   {a_stack.part('web').url}admin/ - {account}",
        f"Flower:  {a_stack.part('flower').url} - the login is FLOWER_BASIC_AUTH in {file}",
        f"Shell:   set -a; . {file}; set +a; .venv/bin/python manage.py hpc job list",
        "Ctrl-C stops it.",
    ]
    return "\n".join(lines)


@dataclass
class Restart:
    """When a program that ended is started again."""

    failures: int = 0
    due: float = 0.0
    started: float = 0.0

    def plan(self, now: float) -> float:
        """Note that the program has ended; return the pause until its next start, in seconds."""
        if now - self.started >= GOOD_RUN_S:
            self.failures = 0
        pause_s = min(2.0**self.failures, LONGEST_PAUSE_S)
        self.failures += 1
        self.due = now + pause_s
        return pause_s


def supervise(a_stack: stack.Stack, asked: interruption.Interruption) -> None:
    """Start again whatever ends, until `pause` raises Stopped."""
    restarts = {part.name: Restart(started=time.monotonic()) for part in a_stack.parts}
    while True:
        if a_stack.restart_redis_if_ended():
            stack.say("Redis had ended and was started again.")
        for part in a_stack.parts:
            attend(a_stack, part, restarts[part.name])
        asked.pause(STEP_S)


def attend(a_stack: stack.Stack, part: stack.Program, restart: Restart) -> None:
    """Collect a program that has ended, or start it when it is due."""
    now = time.monotonic()
    if part.child and part.has_ended:
        status = part.child.collect()
        part.child = None
        pause_s = restart.plan(now)
        stack.say(f"{part.name} ended with status {status}; it starts again in {pause_s:.0f} s.")
    elif part.child is None and now >= restart.due:
        a_stack.start_part(part)
        restart.started = now


def read_environment(path: Path) -> dict[str, str]:
    """The environment of the last run, or a new one; removes what a killed run left."""
    if not path.exists():
        return environment.generate(f"run-{secrets.token_hex(4)}")
    own = environment.read(path)
    sockets = Path(own.get("HPC_REDIS_URL", "").partition("://")[2]).parent
    if sockets.name.startswith(SOCKETS_PREFIX) and sockets.is_dir():
        shutil.rmtree(sockets)
    return own


@contextlib.contextmanager
def only_one(state: Path) -> Iterator[None]:
    """Hold the lock of a state directory; OpsError if another stack holds it."""
    with (state / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise errors.OpsError(
                f"This stack is already running, as process {file.read().strip()}: "
                f"stop that one first, or use it. Its data is in {state}."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
