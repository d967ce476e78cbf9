"""The `local` batch system: `client.py local submit|queue|find|cancel|kill`, for plain processes.

A job is a session of its own whose leader is the wrapper, known by process id, start time and
boot id. The wrapper's exit record is the accounting. Each verb prints lines and then "end".

It is started once for each submission and poll: import little.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import select
import signal
import sys
import time
from typing import Any, Optional

from cluster_client.layout import control_of, is_jobs_root, missing_root

REFUSED_STATUS = 3
IMPOSSIBLE_STATUS = 4
WRAPPER_REFUSED = 122
_CLAIM_WAIT_S = 5.0
_EXIT_WAIT_S = 0.5
_RECORD_LIMIT_BYTES = 1 << 16
_BASH = "/bin/bash"


# Processes --------------------------------------------------------------------------------------


@functools.cache
def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def host_name() -> str:
    with open("/proc/sys/kernel/hostname", encoding="utf-8") as file:
        return file.read().strip()


def _stat_fields(pid: int) -> Optional[list[str]]:
    """/proc/PID/stat from field 3 (state) on; None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def id_of(pid: int) -> str:
    """The scheduler job id of a live process, or "" if it is gone or a zombie."""
    fields = _stat_fields(pid)
    if fields is None or fields[0] in "ZX":
        return ""
    return f"local:{pid}.{fields[19]}.{boot_id()}"


def pid_of(scheduler_job_id: str) -> int:
    """The process id in a scheduler job id; ValueError if it is none of ours."""
    kind, _, rest = scheduler_job_id.partition(":")
    parts = rest.split(".")
    if kind != "local" or len(parts) != 3:
        raise ValueError(f"{scheduler_job_id!r} is not the id of a local job")
    return int(parts[0])


def session_members(leader: int, since: str) -> list[int]:
    """The live processes of the session that `leader` began, none older than it.

    A process id is not given out again while a session still bears it.
    """
    members = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        fields = _stat_fields(int(name))
        if not fields or fields[0] in "ZX":
            continue
        if int(fields[3]) == leader and int(fields[19]) >= int(since):
            members.append(int(name))
    return members


def live_members(scheduler_job_id: str) -> list[int]:
    """Who is left of the job on this boot of this host; its leader comes first if it lives."""
    pid, since, boot = scheduler_job_id.partition(":")[2].split(".")
    if boot != boot_id():
        return []
    leader = int(pid)
    members = session_members(leader, since)
    if leader in members:
        if id_of(leader) != scheduler_job_id:
            return []
        members.remove(leader)
        members.insert(0, leader)
    return members


# Records ----------------------------------------------------------------------------------------


def read_claim(directory: str) -> tuple[str, str]:
    """The id and host that hold the claim; ("", "") if nobody does."""
    try:
        with open(os.path.join(control_of(directory), "claim"), encoding="utf-8") as file:
            lines = [line.rstrip(" ") for line in file.read(4096).splitlines()]
    except FileNotFoundError:
        return "", ""
    return (lines[0] if lines else ""), (lines[1] if len(lines) > 1 else "")


def read_record(path: str, scheduler_job_id: str) -> Optional[dict[str, Any]]:
    """The wrapper's record in this file, if there is one and this id wrote it."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            record = json.loads(file.read(_RECORD_LIMIT_BYTES))
    except (FileNotFoundError, ValueError):
        return None
    if isinstance(record, dict) and record.get("id") == scheduler_job_id:
        return record
    return None


def exit_record(directory: str, scheduler_job_id: str) -> Optional[dict[str, Any]]:
    """How the job ended, once it has; a local job has neither tasks nor restarts."""
    return read_record(os.path.join(control_of(directory), "exit.-.0"), scheduler_job_id)


def refusal_record(directory: str, scheduler_job_id: str) -> Optional[dict[str, Any]]:
    """Why the wrapper did not start the script, if it did not."""
    control = control_of(directory)
    try:
        names = [name for name in os.listdir(control) if name.startswith("refused.")]
    except FileNotFoundError:
        return None
    records = (read_record(os.path.join(control, n), scheduler_job_id) for n in names[:100])
    return next((record for record in records if record is not None), None)


# Verbs ------------------------------------------------------------------------------------------


def submit(tag: str) -> int:
    """Start the wrapper named in the document on stdin, detached; print the job's id."""
    document = json.load(sys.stdin)
    directory = document["directory"]
    try:
        pid = _start(directory, document["environment"], document["umask"])
    except OSError as error:
        sys.stderr.write(f"The job {tag} could not be started: {error}.\n")
        return IMPOSSIBLE_STATUS if error.errno == errno.E2BIG else REFUSED_STATUS
    own = _id_of_child(pid)
    claimant, status = _claimant(directory, pid)
    if not claimant and status == WRAPPER_REFUSED:
        sys.stderr.write(f"The job {tag} did not start: {directory} can't be claimed.\n")
        return REFUSED_STATUS
    print(claimant or own)  # noqa: T201
    return 0


def _id_of_child(pid: int) -> str:
    """As id_of, for a child of ours that may have ended already."""
    fields = _stat_fields(pid)
    return f"local:{pid}.{fields[19]}.{boot_id()}" if fields else ""


def _start(directory: str, environment: dict[str, str], umask: int) -> int:
    os.umask(umask)
    os.chdir(directory)
    # Opened here and not in the child: what blocks for ever must be killable with this command.
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files = [os.open(os.devnull, os.O_RDONLY)]
    files += [os.open(name, append, 0o666) for name in ("stdout.log", "stderr.log")]
    return os.posix_spawn(
        _BASH,
        [_BASH, "-p", os.path.join(control_of(directory), "wrapper")],
        {**environment, "PWD": directory},  # as a shell would set it on arriving there
        file_actions=[(os.POSIX_SPAWN_DUP2, file, number) for number, file in enumerate(files)],
        setsid=True,
        setsigmask=(),
        setsigdef=[s for s in signal.Signals if s not in (signal.SIGKILL, signal.SIGSTOP)],
    )


def _claimant(directory: str, pid: int) -> tuple[str, int]:
    """Who holds the claim, once somebody does: an earlier start of the same job may be first.

    The second is the wrapper's exit status if it has ended already, else -1.
    """
    deadline = time.monotonic() + _CLAIM_WAIT_S
    pause_s = 0.001
    while time.monotonic() < deadline:
        if claim := read_claim(directory)[0]:
            return claim, -1
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return read_claim(directory)[0], os.waitstatus_to_exitcode(status)
        time.sleep(pause_s)
        pause_s = min(0.02, pause_s * 2)
    return "", -1


def queue(root: str) -> int:
    """For each line `TAG ID` on stdin print `TAG STATE JSON`."""
    deadline = time.monotonic() + _EXIT_WAIT_S
    for line in sys.stdin.read().splitlines():
        tag, scheduler_job_id = line.split(" ", 1)
        state, record = look(os.path.join(root, tag), scheduler_job_id, deadline)
        print(tag, state, json.dumps(record))  # noqa: T201
    print("end")  # noqa: T201
    return 0


def look(directory: str, scheduler_job_id: str, deadline: float) -> tuple[str, dict[str, Any]]:
    """One job: `running`, `ended` or `refused` with its record, `gone`, or `unknown`."""
    try:
        pid = pid_of(scheduler_job_id)
        is_alive = id_of(pid) == scheduler_job_id
        if is_alive and exit_record(directory, scheduler_job_id) is not None:
            _wait_for_exit(pid, deadline)
            is_alive = id_of(pid) == scheduler_job_id
        if is_alive:
            return "running", {}
        # Only now: a wrapper that is gone has written its record, if it was to write one.
        if record := exit_record(directory, scheduler_job_id):
            return "ended", record
        if record := refusal_record(directory, scheduler_job_id):
            return "refused", record
        if live_members(scheduler_job_id):  # the wrapper was shot, its script goes on
            return "running", {}
        claim, host = read_claim(directory)
        if claim == scheduler_job_id and host != host_name():
            return "unknown", {"words": f"it runs on {host}, which can't be seen from here"}
        root = os.path.dirname(directory)
        if not is_jobs_root(root):
            return "unknown", {"words": f"{root}: {missing_root(root).strerror}"}
    except (OSError, ValueError) as error:
        return "unknown", {"words": str(error)}
    return "gone", {}


def _wait_for_exit(pid: int, deadline: float) -> None:
    """The record is there, so the wrapper is about to end: see it now, not at the next poll."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):  # before Linux 5.3, or it is gone
        before = id_of(pid)
        while before and id_of(pid) == before and time.monotonic() < deadline:
            time.sleep(0.005)
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
    finally:
        os.close(descriptor)


def find(root: str, tag: str) -> int:
    """Print the ids of all wrappers of `tag` that run here, and the id in the claim."""
    directory = os.path.join(root, tag)
    wanted = [_BASH, "-p", os.path.join(control_of(directory), "wrapper")]
    found = [read_claim(directory)[0]]
    uid = os.getuid()
    for name in os.listdir("/proc"):
        if name.isdigit() and _is_wrapper(int(name), uid, wanted):
            found.append(id_of(int(name)))
    for scheduler_job_id in dict.fromkeys(filter(None, found)):
        print(scheduler_job_id)  # noqa: T201
    print("end")  # noqa: T201
    return 0


def _is_wrapper(pid: int, uid: int, wanted: list[str]) -> bool:
    """The wrapper leads its session; its own subshells bear the same argv and don't."""
    try:
        if os.stat(f"/proc/{pid}").st_uid != uid:
            return False
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            argv = os.fsdecode(file.read()).split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return False
    if argv != wanted:
        return False
    fields = _stat_fields(pid)
    return fields is not None and int(fields[3]) == pid


def cancel(root: str, tag: str, scheduler_job_id: str, is_forced: bool) -> int:
    """Signal all of the job: TERM, or by force KILL; print `signalled` or `gone`."""
    pid = pid_of(scheduler_job_id)
    record = exit_record(os.path.join(root, tag), scheduler_job_id)
    members = [] if record is not None else live_members(scheduler_job_id)
    if is_forced:
        # The wrapper last: as long as it lives it can record how the script ended.
        members = [member for member in members if member != pid] or members
        for member in members:
            _signal(member, signal.SIGKILL)
    elif members:
        in_group = [member for member in members if _group_of(member) == pid]
        if in_group:
            _signal_group(pid, signal.SIGTERM)  # at once, so that nobody gets it twice
        for member in members:
            if member not in in_group:
                _signal(member, signal.SIGTERM)
    print("signalled" if members else "gone")  # noqa: T201
    print("end")  # noqa: T201
    return 0


def _group_of(pid: int) -> int:
    fields = _stat_fields(pid)
    return int(fields[2]) if fields else 0


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _signal_group(pgid: int, number: int) -> None:
    try:
        os.killpg(pgid, number)
    except ProcessLookupError:
        return


def main(argv: list[str]) -> int:
    """Carry out one verb; 0 only if its answer can be trusted."""
    verb, rest = (argv[0] if argv else ""), argv[1:]
    try:
        if verb == "submit" and len(rest) == 1:
            return submit(rest[0])
        if verb == "queue" and len(rest) == 1:
            return queue(rest[0])
        if verb == "find" and len(rest) == 2:
            return find(rest[0], rest[1])
        if verb in ("cancel", "kill") and len(rest) == 3:
            return cancel(rest[0], rest[1], rest[2], is_forced=verb == "kill")
    except (OSError, ValueError, KeyError) as error:
        sys.stderr.write(f"local {verb}: {error}\n")
        return 1
    sys.stderr.write("usage: client.py local submit TAG | queue ROOT | find ROOT TAG"
                     " | cancel|kill ROOT TAG ID\n")  # fmt: skip
    return 2
