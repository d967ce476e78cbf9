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
from typing import Any, Optional

from . import errors, sources
from .definitions import DEFINITIONS, NAMES, Definition


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
    login_limit_s: float
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
    if definition.is_path:
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
