"""Every setting of the client: its name, how it is read, its default and its meaning."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, Callable

from . import sources


@dataclass(frozen=True)
class Definition:
    """One setting. `parse` raises ValueError with the words after "must be"."""

    name: str
    attribute: str
    parse: Callable[[Any], Any]
    default: Any
    unit: str
    text: str
    is_local: bool = False
    """Only the cluster's side may set it: the server's value is ignored."""

    @property
    def is_path(self) -> bool:
        """Whether a default that is relative lies beside the client."""
        return self.unit == "path"


def _path(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value or not os.path.isabs(value):
        raise ValueError("an absolute path")
    return os.path.normpath(value)


def _number(least: float, most: float) -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        wanted = f"a number from {least:g} to {most:g}"
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError(wanted)
        try:
            number = float(value)
        except (ValueError, OverflowError):
            raise ValueError(wanted) from None
        if not least <= number <= most:
            raise ValueError(wanted)
        return number

    return parse


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        wanted = f"a whole number from {least} to {most}"
        is_text = isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value) is not None
        if not is_text and type(value) is not int:
            raise ValueError(wanted)
        if not least <= int(value) <= most:
            raise ValueError(wanted)
        return int(value)

    return parse


def _switch(value: Any) -> bool:
    word = str(value).lower()
    if word not in ("1", "true", "yes", "0", "false", "no"):
        raise ValueError("1 or 0")
    return word in ("1", "true", "yes")


def _scheduler(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][\w-]*(\.[A-Za-z_]\w*)*", value):
        raise ValueError("the name of a scheduler or the dotted path of a class")
    return value


def _level(value: Any) -> str:
    levels = ("DEBUG", "INFO", "WARNING", "ERROR")
    if str(value).upper() not in levels:
        raise ValueError(f"one of {', '.join(levels)}")
    return str(value).upper()


def _url(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"wss?://[^\s/]+(/\S*)?", value):
        raise ValueError("a URL that begins with ws:// or wss://")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("text")
    return value


DEFINITIONS = (
    Definition(
        "HPC_LOG_DIRECTORY", "log_directory", _path, "log", "path", "Where the daemon logs."
    ),
    Definition(
        "HPC_JOB_WORKING_DIRECTORY",
        "job_working_directory",
        _path,
        "jobs",
        "path",
        "One directory a job is made in it; compute nodes must see it.",
    ),
    Definition(
        sources.STATE_DIRECTORY,
        "state_directory",
        _path,
        "state",
        "path",
        "What the daemon must not forget; all login nodes must see it.",
        is_local=True,
    ),
    Definition(
        "HPC_SCHEDULER_CLASS",
        "scheduler",
        _scheduler,
        "local",
        "name",
        "The batch scheduler, by name or class path; set here it overrules the server's.",
    ),
    Definition(
        "HPC_DAEMON_PID_FILE",
        "pid_file",
        _path,
        "/tmp/job_controller.pid",  # noqa: S108 - informs people; nothing trusts it
        "path",
        "Holds the daemon's pid, for people; nothing depends on it.",
    ),
    Definition(
        "HPC_WEBSOCKET_SERVER",
        "websocket_server",
        _url,
        "ws://localhost:8001",
        "URL",
        "Reserved for clusters that call back; not used yet.",
    ),
    Definition(
        "HPC_POLL_INTERVAL_S",
        "poll_interval_s",
        _number(0.1, 3600),
        10.0,
        "s",
        "Least time between two status queries.",
    ),
    Definition(
        "HPC_POLL_INTERVAL_IDLE_S",
        "poll_interval_idle_s",
        _number(0.1, 3600),
        30.0,
        "s",
        "The same while every job waits in the queue.",
    ),
    Definition(
        "HPC_HINT_INTERVAL_S",
        "hint_interval_s",
        _number(0.05, 60),
        0.2,
        "s",
        "How often the hints that jobs leave behind are looked at.",
    ),
    Definition(
        "HPC_SUBMIT_PARALLEL",
        "submit_parallel",
        _whole(1, 16),
        1,
        "jobs",
        "Submissions under way at once.",
    ),
    Definition(
        "HPC_COMMAND_LIMIT_S",
        "command_limit_s",
        _number(1, 3600),
        60.0,
        "s",
        "A scheduler command that takes longer is ended.",
    ),
    Definition(
        "HPC_LOGIN_LIMIT_S",
        "login_limit_s",
        _number(1, 3600),
        60.0,
        "s",
        "A login shell with the set-up commands that takes longer is ended.",
    ),
    Definition(
        "HPC_LOST_AFTER_S",
        "lost_after_s",
        _number(1, 31536000),
        86400.0,
        "s",
        "A job of which nothing is found for this long is reported.",
    ),
    Definition(
        "HPC_LOG_SIZE_BYTES",
        "log_size_bytes",
        _whole(1024, 1 << 40),
        10 << 20,
        "bytes",
        "A log file that grows over this is put aside.",
    ),
    Definition(
        "HPC_LOG_FILES",
        "log_files",
        _whole(2, 1000),
        5,
        "files",
        "How many log files are kept, the current one included.",
    ),
    Definition("HPC_LOG_LEVEL", "log_level", _level, "INFO", "word", "The least that is logged."),
    Definition(
        "HPC_SOCKET_CHECK_S",
        "socket_check_s",
        _number(0.1, 3600),
        60.0,
        "s",
        "How often the daemon checks that its socket and registry are still its own.",
    ),
    Definition(
        "HPC_ALLOW_ROOT",
        "allow_root",
        _switch,
        False,
        "switch",
        "Without it the client refuses to run as root.",
        is_local=True,
    ),
    Definition(
        "HPC_ALLOW_FAULT_POINTS",
        "allow_fault_points",
        _switch,
        False,
        "switch",
        "For tests: lets HPC_FAULT_POINT be set.",
        is_local=True,
    ),
    Definition(
        "HPC_FAULT_POINT",
        "fault_point",
        _text,
        "",
        "text",
        "For tests: where the daemon kills itself.",
        is_local=True,
    ),
)

NAMES = tuple(definition.name for definition in DEFINITIONS)


def table() -> str:
    """The settings as the Markdown table of the README."""
    rows = ["| setting | default | unit | meaning |", "|---|---|---|---|"]
    for definition in DEFINITIONS:
        default = _shown_default(definition)
        rows.append(f"| `{definition.name}` | {default} | {definition.unit} | {definition.text} |")
    return "\n".join(rows) + "\n"


def _shown_default(definition: Definition) -> str:
    default = definition.default
    if definition.is_path and not os.path.isabs(default):
        return f"`<client path>/{default}`"
    if isinstance(default, bool):
        return f"`{int(default)}`"
    return "" if default == "" else f"`{default}`"
