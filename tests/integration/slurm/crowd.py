"""The jobs that the tests of ends share: what they run, what they ask for, how they end."""

from __future__ import annotations

from cluster_client.protocol.messages import Resources

PYTHON = "#!/usr/bin/python3\n"
TCSH = "#!/bin/tcsh -f\n"
NO_INTERPRETER = "#!/no/such/interpreter\n"
FAILS = "exit 1"

ENDS = {
    "exit 0": (0, None, "completed"),
    FAILS: (1, None, "failed"),
    "exit 3": (3, None, "failed"),
    "exit 255": (255, None, "failed"),
    "set -e; false; exit 5": (1, None, "failed"),
    "#!/bin/sh -e\nfalse; true\n": (1, None, "failed"),
    "exec sh -c 'exit 9'": (9, None, "failed"),
    "exec sh -c 'kill -TERM $$'": (None, 15, "failed"),
    "kill -KILL $$": (None, 9, "failed"),
    "kill -SEGV $$": (None, 11, "failed"),
    "kill -TERM $$": (None, 15, "failed"),
    "trap 'exit 0' TERM; (sleep 0.3; kill -TERM $$) & wait; exit 5": (0, None, "completed"),
    PYTHON + "raise SystemExit(42)\n": (42, None, "failed"),
    PYTHON + "import os\nos.kill(os.getpid(), 6)\n": (None, 6, "failed"),
    TCSH + "set x = ( 1 2 )\nif ( $#x == 2 ) exit 6\n": (6, None, "failed"),
    TCSH + "no_such_command\necho $status >&2\n": (0, None, "completed"),
    TCSH + "kill -TERM $$\nsleep 9\n": (None, 15, "failed"),
    NO_INTERPRETER: (122, None, "refused"),
}
"""Exit code, signal and outcome of each script, as Slurm's user would have them."""


def _counts_in_bash(signal: str) -> str:
    return (
        f"n=0; trap 'n=$((n + 1))' {signal}; touch ready\n"
        "until [ $n -gt 0 ]; do sleep 0.05; done\nsleep 0.7\nexit $((10 + n))"
    )


def _counts_in_python(signal: str) -> str:
    return (
        f"{PYTHON}import signal, sys, time\ncaught = []\n"
        f"signal.signal(signal.SIG{signal}, lambda *_: caught.append(1))\n"
        "open('ready', 'w').close()\nwhile not caught: time.sleep(0.05)\n"
        "time.sleep(0.7)\nsys.exit(10 + len(caught))\n"
    )


_TCSH_COUNTS = "onintr caught\ntouch ready\nsleep 60\nexit 5\ncaught:\nonintr -\nexit 11\n"

SIGNALS = {
    ("-b", "TERM"): _counts_in_bash("TERM"),
    ("-b", "INT"): _counts_in_python("INT"),
    ("-b", "USR1"): _counts_in_python("USR1"),
    ("-f", "TERM"): _counts_in_python("TERM"),
    ("-f", "INT"): TCSH + _TCSH_COUNTS,
    ("-f", "USR1"): _counts_in_bash("USR1"),
}
"""To the batch shell alone (-b) or to all of the job (-f): each ends with 10 + how many it got."""

GREEDY = "python3 -c 'x = bytearray(300 << 20); import time; time.sleep(5)'"
_LITTLE = Resources(memory_mib=60)

JOBS: dict[str, tuple[str, Resources]] = {
    # Limits are looked after every 30 s; the end of this one is moved near, once it runs.
    "at its limit": ("#SBATCH --time=1\nsleep 300", Resources()),
    # It gets the signal 50 s before its limit: when that is next looked after.
    "warned": (
        "#SBATCH --time=1 --signal=B:USR1@50\ntrap 'exit 77' USR1\nsleep 300 & wait",
        Resources(),
    ),
    "good": ("pwd; echo oops >&2; sleep 1", Resources()),
    "array": (
        "#SBATCH --array=0-3%2\nsleep 1; echo $SLURM_ARRAY_TASK_ID; exit $SLURM_ARRAY_TASK_ID",
        Resources(),
    ),
    "cancelled": ("touch ready; sleep 300", Resources()),
    "cancelled held": ("#SBATCH --hold\ntouch ready", Resources()),
    "cancelled by somebody": ("sleep 300", Resources()),
    # Slurm calls a job that ends by itself, while it is being cancelled, cancelled all the same.
    "ends while cancelled": ("trap 'exit 0' TERM; sleep 300 & wait; exit 5", Resources()),
    "greedy": (GREEDY, _LITTLE),
    "greedy step": (f"srun {GREEDY}", _LITTLE),
    **{f"end of: {body}": (body, Resources()) for body in ENDS},
    **{f"gets {' '.join(how)}": (body, Resources()) for how, body in SIGNALS.items()},
}
