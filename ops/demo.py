"""`make demo`: the whole stack in a temporary directory, one real job, and nothing left behind."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import textwrap
import time

from ops import environment, errors, interruption, stack

CLUSTER = "localhost"
SCRIPT = """\
    #!/bin/bash
    echo "Hello from $(uname -n). This is job $HPC_DEMO_WORD, at work in $PWD."
    for part in 1 2 3; do
        sleep 0.5
        echo "part $part of 3 is done"
    done
    """


def main(asked: interruption.Interruption) -> int:
    """Show the program at work; return 0 if everything went well and nothing is left."""
    started = time.monotonic()
    state = stack.temporary_directory("hpc-demo-")
    stack.say(f"Everything of this demo lives in {state}, and is removed at its end.")
    if os.geteuid() == 0:
        stack.say("You are root: the demo allows root (HPC_ALLOW_ROOT=1), for itself alone.")
    try:
        own = environment.generate(f"demo-{secrets.token_hex(4)}")
        parts = stack.programs(web_port=0, flower_port=0)
        demo = stack.Stack(state, state / "redis", own, parts, asked)
        try:
            show(demo)
        finally:
            stop(demo)
    finally:
        shutil.rmtree(state)
    took_s = time.monotonic() - started
    stack.say(f"Stopped: no process, socket or file is left. The demo took {took_s:.0f} s.")
    return 0


def show(demo: stack.Stack) -> None:
    """Start the stack, register this machine as a cluster, run one job, read its output."""
    stack.say("Starting Redis, the database, the web server, two workers and Flower.")
    demo.start()
    stack.say(f"They are up: the admin at {demo.part('web').url}admin/, Flower behind a password.")
    register_cluster(demo)
    word = secrets.token_hex(4)
    script = demo.state / "hello.sh"
    script.write_text(textwrap.dedent(SCRIPT).replace("$HPC_DEMO_WORD", word))
    stack.say("Submitting a job to it; these are its states as they change:")
    submit = ("hpc", "job", "submit", "--cluster", CLUSTER, "--script", str(script), "--wait")
    demo.manage(*submit, is_shown=True)
    stack.say("Its output, read back from the cluster:")
    output = demo.manage("hpc", "job", "output", str(only_job(demo)))
    stack.say(textwrap.indent(output, "    "))
    if word not in output:
        raise errors.OpsError("The job's output is not what its script prints.")


def register_cluster(a_stack: stack.Stack) -> None:
    """Register this machine as a cluster, and wait until a worker holds the link to it."""
    path = a_stack.client_path
    stack.say(f"Registering this machine as the cluster {CLUSTER!r}, with its client in {path}.")
    add = ("hpc", "cluster", "add", CLUSTER, "--host", "localhost", "--scheduler", "local")
    a_stack.manage(*add, "--client-path", str(path), "--python", sys.executable, "--connect")


def only_job(demo: stack.Stack) -> int:
    """The id of the one job that there is."""
    jobs = json.loads(demo.manage("hpc", "job", "list", "--json"))
    return int(jobs[0]["id"])


def stop(demo: stack.Stack) -> None:
    """Stop everything; OpsError names what could not be stopped."""
    stack.say("Stopping everything.")
    left = demo.stop(with_jobs=True)
    if left:
        raise errors.OpsError(f"This could not be stopped: {', '.join(left)}.")
