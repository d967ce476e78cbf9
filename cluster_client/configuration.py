"""Every setting of the client, typed, with its default; the only module that decides values.

Precedence: environment, `<client path>/settings/settings.py`, what the server sent at the start,
the defaults below. A bad value stops the start with a sentence that names the setting.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Optional

from . import errors, sources


@dataclass(frozen=True)
class Settings:
    """What the daemon and `files` work with; see DEFINITIONS for meaning and units."""

    client_path: str
    state_directory: str
    """With the key: nobody else writes there."""
    job_working_directory: str
    log_directory: str
    scheduler: str
    scheduler_overruled: bool
    """The scheduler was set on the cluster, to another value than the server's."""
    poll_interval_s: float
    poll_interval_idle_s: float
    hint_interval_s: float
    submit_parallel: int
    command_limit_s: float
    lost_after_s: float
    log_size_bytes: int
    log_files: int
    log_level: str
    pid_file: str
    websocket_server: str
    socket_check_s: float
    allow_root: bool
    allow_fault_points: bool
    fault_point: str
    umask: int
    group: str
    setup_commands: str
    instance_id: str
    cluster_id: int
    generation: int


@dataclass(frozen=True)
class StartDocument:
    """What the server says at the start; kept in the state directory for a later start by hand."""

    instance_id: str
    cluster_id: int
    generation: int
    settings: dict[str, Any]
    setup_commands: str = ""
    umask: str = "0077"
    group: str = ""


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


def load(path: str, document: StartDocument) -> Settings:
    """The settings of the client at `path` for the key of `document`."""
    return resolve(path, document, sources.environment(), sources.site_file(path))


def resolve(
    path: str,
    document: StartDocument,
    environment: Mapping[str, Any],
    site: Mapping[str, Any],
) -> Settings:
    """The same from given sources."""
    _check_names(path, site)
    values: dict[str, Any] = {}
    for definition in DEFINITIONS:
        values[definition.attribute] = _value(path, definition, document, environment, site)
    key = f"{document.instance_id}.{document.cluster_id}"
    values["state_directory"] = os.path.join(values["state_directory"], key)
    if values["fault_point"] and not values["allow_fault_points"]:
        raise errors.SettingsError(
            "HPC_FAULT_POINT is for tests and refused without HPC_ALLOW_FAULT_POINTS=1."
        )
    return Settings(
        client_path=path,
        scheduler_overruled=_is_overruled(values["scheduler"], document),
        umask=_umask(document.umask),
        group=document.group,
        setup_commands=document.setup_commands,
        instance_id=document.instance_id,
        cluster_id=document.cluster_id,
        generation=document.generation,
        **values,
    )


def read_document(raw: object, key: str) -> StartDocument:
    """The start document for `key` in decoded JSON; SettingsError says what is wrong with it."""
    if not isinstance(raw, dict):
        raise errors.SettingsError("The start document must be a JSON object.")
    instance, number = sources.parse_key(key)
    document = StartDocument(
        instance_id=_field(raw, "instance_id", str, None),
        cluster_id=_field(raw, "cluster_id", int, None),
        generation=_field(raw, "generation", int, None),
        settings=_field(raw, "settings", dict, {}),
        setup_commands=_field(raw, "setup_commands", str, ""),
        umask=_field(raw, "umask", str, "0077"),
        group=_field(raw, "group", str, ""),
    )
    if (document.instance_id, document.cluster_id) != (instance, number):
        raise errors.SettingsError(
            f"The start document is for {document.instance_id}.{document.cluster_id}, not {key}."
        )
    if not 1 <= document.generation < 1 << 63:
        raise errors.SettingsError("The start document's generation must be 1 or more.")
    return document


def is_set(settings: Settings, name: str) -> bool:
    """Whether the setting differs from its default."""
    definition = next(one for one in DEFINITIONS if one.name == name)
    return bool(getattr(settings, definition.attribute) != definition.default)


def table() -> str:
    """The settings as the Markdown table of the README."""
    rows = ["| setting | default | unit | meaning |", "|---|---|---|---|"]
    for definition in DEFINITIONS:
        default = _shown_default(definition)
        rows.append(f"| `{definition.name}` | {default} | {definition.unit} | {definition.text} |")
    return "\n".join(rows) + "\n"


def _shown_default(definition: Definition) -> str:
    default = definition.default
    if definition.parse is _path and not os.path.isabs(default):
        return f"`<client path>/{default}`"
    if isinstance(default, bool):
        return f"`{int(default)}`"
    return "" if default == "" else f"`{default}`"


def _field(raw: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    value = raw.get(name, default)
    if type(value) is not kind:
        raise errors.SettingsError(f"The start document's {name} is missing or no {kind.__name__}.")
    return value


def _value(
    path: str,
    definition: Definition,
    document: StartDocument,
    environment: Mapping[str, Any],
    site: Mapping[str, Any],
) -> Any:
    name = definition.name
    found: Optional[tuple[str, Any]] = None
    if name in environment and environment[name] != "":
        found = ("the environment", environment[name])
    elif name in site:
        found = (os.path.join(path, "settings", "settings.py"), site[name])
    elif name in document.settings and not definition.is_local:
        found = ("the server", document.settings[name])
    if found is not None:
        return _parsed(definition, *found)
    if definition.parse is _path:
        return os.path.join(path, definition.default)
    return definition.default


def _parsed(definition: Definition, origin: str, value: Any) -> Any:
    try:
        return definition.parse(value)
    except ValueError as error:
        raise errors.SettingsError(
            f"{definition.name} must be {error}, not {value!r} (set by {origin})."
        ) from None


def _is_overruled(scheduler: str, document: StartDocument) -> bool:
    asked = document.settings.get("HPC_SCHEDULER_CLASS")
    return asked is not None and asked != scheduler


def _check_names(path: str, site: Mapping[str, Any]) -> None:
    # The environment may hold the server's HPC_* (local carrier); the site's file is ours alone,
    # and a name with a slip of the pen in it would be ignored in silence.
    for name in site:
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise errors.SettingsError(
                f"{name} in {os.path.join(path, 'settings', 'settings.py')} is no setting.{hint}"
            )


def _umask(text: str) -> int:
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise errors.SettingsError(f"The umask must be octal like 0077, not {text!r}.")
    value = int(text, 8)
    if not value & 0o002:
        raise errors.SettingsError(f"The umask {text} would let anybody write: use 0077 or 0027.")
    return value
