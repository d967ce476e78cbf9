"""Every HPC_* setting, typed, with its default: the one reader of settings and environment.

A setting is a field of Conf: HPC_LEASE_TTL_S is `conf.get().lease_ttl_s`. A project may set it in
its Django settings; the standalone project takes it from the environment by the same name.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography.fernet import Fernet
from django.conf import settings
from django.core.signals import setting_changed

from . import errors

PREFIX = "HPC_"
TRUE_WORDS = {"1", "true", "yes", "on"}
FALSE_WORDS = {"0", "false", "no", "off", ""}


def _setting(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    least: float | None = None,
    most: float | None = None,
    pattern: str = "",
    is_required: bool = False,
    is_secret: bool = False,
) -> Any:
    metadata = {
        "doc": doc,
        "unit": unit,
        "least": least,
        "most": most,
        "pattern": pattern,
        "is_required": is_required,
        "is_secret": is_secret,
    }
    return dataclasses.field(default=default, metadata=metadata)


def _seconds(default: float, doc: str, *, least: float = 0.05, most: float = 366 * 86400) -> Any:
    return _setting(default, doc, unit="s", least=least, most=most)


@dataclass(frozen=True)
class Conf:
    """The settings, checked. Names are those of the settings in lower case, without HPC_."""

    instance_id: str = _setting(
        "",
        "Names this installation on its clusters; never stored in the database.",
        pattern=r"[a-z0-9-]{1,32}",
        is_required=True,
    )
    secret_keys: tuple[str, ...] = _setting(
        (),
        "Fernet keys, newest first, separated by commas: the private keys and passwords of clusters"
        " are encrypted with the first, and decrypted with any; docs/operations.md tells how to"
        " change them. Who has them and the database has those secrets.",
        is_required=True,
    )
    job_class: str = _setting(
        "controller.models.HpcJob", "Dotted path of the model that jobs are loaded as."
    )
    cluster_chooser: str = _setting(
        "", "Dotted path of a function (job, parameters) that returns an HpcCluster or None."
    )
    allow_local_carrier: bool = _setting(
        False, "Allow clusters that are processes of the worker's own user and machine."
    )
    allow_root: bool = _setting(False, "Let workers and local daemons run as root.")
    allow_fault_points: bool = _setting(False, "Let HPC_FAULT_POINT kill processes; for tests.")
    fault_point: str = _setting("", "Where a process kills itself; for tests, environment only.")
    ipc_unix_socket: str = _setting(
        "/tmp/job_controller.sock",  # noqa: S108  # the original's default, a base name
        "Base path of the sockets on which a web process waits for a files worker: each is named"
        " after it, and lives for one transfer.",
    )
    file_relay_url: str = _setting(
        "",
        "Redis (redis://, rediss://, unix://; version 6 or newer) through which file data goes"
        " between hosts; empty: through the sockets, on one host.",
        pattern=r"((redis|rediss|unix)://.+)?",
        is_secret=True,
    )
    file_connection_chunk_size: int = _setting(
        1 << 20,
        "Size of a piece of a file on its way.",
        unit="bytes",
        least=1024,
        most=4 << 20,
    )
    websocket_port: int = _setting(
        8001, "Reserved for clusters that call back.", least=1, most=65535
    )
    lease_ttl_s: float = _seconds(10, "How long a link's lease lasts.")
    lease_renew_s: float = _seconds(3, "How often a worker renews its leases.")
    lease_mute_s: float = _seconds(7, "After which a link without a renewed lease goes mute.")
    keeper_interval_s: float = _seconds(1, "How often the keeper looks for links to hold.")
    sweep_interval_s: float = _seconds(15, "How often a holder sweeps its cluster.")
    release_interval_s: float = _seconds(5, "How often a worker above its share gives a link up.")
    submitting_stale_s: float = _seconds(30, "After which a submission is asked for again.")
    cancelling_stale_s: float = _seconds(30, "After which a cancel or delete is asked for again.")
    ping_interval_s: float = _seconds(5, "How often a link is pinged.")
    ping_deadline_s: float = _seconds(15, "After which a silent link is given up.")
    request_deadline_s: float = _seconds(30, "Limit of a request to a cluster client.")
    # What is sent to the clients keeps within their own bounds: beyond, they refuse to start.
    submit_limit_s: float = _seconds(60, "Limit of the scheduler's submit command.", most=3600)
    submit_parallel: int = _setting(
        1, "Submissions in flight a cluster.", unit="jobs", least=1, most=16
    )
    poll_interval_s: float = _seconds(
        10,
        "How often a client asks its scheduler; three times as long while all jobs are queued.",
        least=0.1,
        most=1200,
    )
    lost_after_s: float = _seconds(
        86400, "After which a job absent everywhere is blocked.", least=1, most=365 * 86400
    )
    cluster_task_cap: int = _setting(
        4, "Tasks of one cluster that run at once in a worker.", unit="tasks", least=1, most=1000
    )
    writer_threads: int = _setting(
        4, "Threads of a worker that write to the database.", unit="threads", least=1, most=20
    )
    connect_timeout_s: float = _seconds(20, "Limit of making a link.")
    retry_min_s: float = _seconds(1, "First pause before a link is tried again.")
    retry_max_s: float = _seconds(300, "Longest pause before a link is tried again.")
    logins_per_minute: int = _setting(
        6,
        "SSH logins to one cluster in any minute, over all workers.",
        unit="logins",
        least=1,
        most=600,
    )
    logins_per_hour: int = _setting(
        30,
        "SSH logins to one cluster in any hour, over all workers.",
        unit="logins",
        least=1,
        most=36000,
    )
    script_limit_bytes: int = _setting(
        480 << 10, "Longest script that is accepted.", unit="bytes", least=1, most=480 << 10
    )
    files_parallel: int = _setting(
        8,
        "Questions about files of one cluster that a files worker has under way at once.",
        unit="questions",
        least=1,
        most=64,
    )
    data_idle_s: float = _seconds(
        60, "After which a files worker logs out of a cluster that nobody asks about.", most=3600
    )
    transfers_per_cluster: int = _setting(
        24,
        "Files of one cluster that may be on their way at once, over all files workers.",
        unit="transfers",
        least=1,
        most=512,
    )
    transfers_per_user: int = _setting(
        8,
        "Files that one user may have on their way at once.",
        unit="transfers",
        least=1,
        most=512,
    )
    transfer_start_s: float = _seconds(
        30, "Limit of the time until the first word of a file that was asked for.", most=300
    )
    transfer_stall_s: float = _seconds(
        300, "After which a transfer on which nothing moves is ended.", most=86400
    )
    files_threads: int = _setting(
        64,
        "Threads of a files worker that is started without -c; eight are kept for questions.",
        unit="threads",
        least=10,
        most=1024,
    )
    file_read_limit_bytes: int = _setting(
        256 << 10, "Longest piece that one read returns.", unit="bytes", least=1024, most=512 << 10
    )


FIELDS = {PREFIX + field.name.upper(): field for field in dataclasses.fields(Conf)}
ENVIRONMENT_ONLY = frozenset({"HPC_FAULT_POINT"})
OF_THE_PROJECT = frozenset(
    {"HPC_DATABASE_URL", "HPC_REDIS_URL", "HPC_DATA_DIRECTORY", "HPC_LOG_LEVEL"}
)
"""Settings of the standalone project's environment, which the app itself does not read."""


def from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The HPC_* settings that an environment names, as text; made for a settings module."""
    return {n: environment[n] for n in FIELDS if n in environment and n not in ENVIRONMENT_ONLY}


def problems() -> list[str]:
    """One sentence for each setting that is missing or wrong."""
    return _read()[1]


def unknown_names() -> list[str]:
    """Names of Django settings that begin with HPC_ and mean nothing."""
    known = FIELDS.keys() | OF_THE_PROJECT
    return sorted(n for n in dir(settings) if n.startswith(PREFIX) and n not in known)


def is_set(name: str) -> bool:
    """Whether the project sets `name` (HPC_...) itself."""
    return _raw(name) is not None


@cache
def get() -> Conf:
    """The settings; raises Misconfigured with a sentence for each bad one."""
    values, sentences = _read()
    if sentences:
        raise errors.Misconfigured(" ".join(sentences))
    return Conf(**values)


def document() -> str:
    """The table of all settings for docs/settings.md."""
    lines = [
        "# Settings of the server",
        "",
        "Made from `controller/conf.py` by `python manage.py hpc settings`; don't edit it here.",
        "The app reads them from the project's Django settings; the standalone project takes them",
        "from its environment by the same names.",
        "",
        "| setting | type | default | unit | what it is |",
        "|---|---|---|---|---|",
    ]
    for name, field in FIELDS.items():
        default = "required" if field.metadata["is_required"] else f"`{field.default!r}`"
        kind = str(field.type).replace("tuple[str, ...]", "list of str")
        unit = field.metadata["unit"]
        lines.append(f"| `{name}` | {kind} | {default} | {unit} | {field.metadata['doc']} |")
    return "\n".join(lines) + "\n"


def _raw(name: str) -> Any:
    if name in ENVIRONMENT_ONLY:
        return os.environ.get(name)
    return getattr(settings, name, None)


def _read() -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {}
    sentences = []
    for name, field in FIELDS.items():
        try:
            value = _value(name, field)
        except ValueError as error:
            sentences.append(str(error))
        else:
            values[field.name] = value
    return values, sentences or _contradictions(Conf(**values))


def _value(name: str, field: dataclasses.Field[Any]) -> Any:
    raw = _raw(name)
    if raw is None or (field.metadata["is_required"] and not raw):
        if field.metadata["is_required"]:
            raise ValueError(f"The setting {name} is missing: {field.metadata['doc']}")
        return field.default
    value = _CONVERTERS[str(field.type)](name, raw)
    _check_range(name, field, value)
    return value


def _check_range(name: str, field: dataclasses.Field[Any], value: Any) -> None:
    least, most, pattern = (field.metadata[key] for key in ("least", "most", "pattern"))
    if least is not None and not least <= value <= most:
        unit = f" {field.metadata['unit']}" if field.metadata["unit"] else ""
        raise ValueError(
            f"The setting {name} is {value}; it must lie between {least} and {most}{unit}."
        )
    if pattern and not re.fullmatch(pattern, value):
        shown = "not shown" if field.metadata["is_secret"] else repr(value)
        raise ValueError(f"The setting {name} is {shown}; it must match {pattern}.")


def _contradictions(conf: Conf) -> list[str]:
    sentences = [
        f"HPC_SECRET_KEYS: key {number} is no Fernet key (32 bytes in URL-safe base64); make one"
        " with `python -c 'from cryptography.fernet import Fernet;"
        " print(Fernet.generate_key().decode())'`."
        for number, key in enumerate(conf.secret_keys, 1)
        if not _is_fernet_key(key)
    ]
    if not conf.lease_renew_s < conf.lease_mute_s < conf.lease_ttl_s:
        sentences.append(
            "HPC_LEASE_RENEW_S, HPC_LEASE_MUTE_S and HPC_LEASE_TTL_S must grow in this order, so"
            " that a worker falls silent before another may take over."
        )
    if conf.ping_interval_s >= conf.ping_deadline_s:
        sentences.append("HPC_PING_INTERVAL_S must be below HPC_PING_DEADLINE_S.")
    if conf.retry_min_s > conf.retry_max_s:
        sentences.append("HPC_RETRY_MIN_S must not be above HPC_RETRY_MAX_S.")
    if conf.fault_point and not conf.allow_fault_points:
        sentences.append(
            "The environment sets HPC_FAULT_POINT, which kills processes: unset it, or set"
            " HPC_ALLOW_FAULT_POINTS in a test."
        )
    return sentences


def _is_fernet_key(key: str) -> bool:
    try:
        Fernet(key)
    except ValueError:
        return False
    return True


def _to_bool(name: str, raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    word = str(raw).strip().lower()
    if word not in TRUE_WORDS | FALSE_WORDS:
        raise ValueError(f"The setting {name} is {raw!r}; it must be true or false.")
    return word in TRUE_WORDS


def _to_number(name: str, raw: Any) -> float:
    try:
        if isinstance(raw, bool):
            raise ValueError
        value = float(raw)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"The setting {name} is {raw!r}; it must be a number.")
    return value


def _to_int(name: str, raw: Any) -> int:
    value = _to_number(name, raw)
    if value != int(value):
        raise ValueError(f"The setting {name} is {raw!r}; it must be a whole number.")
    return int(value)


def _to_str(name: str, raw: Any) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"The setting {name} is of type {type(raw).__name__}; it must be text.")
    return raw


def _to_texts(name: str, raw: Any) -> tuple[str, ...]:
    parts = raw.split(",") if isinstance(raw, str) else raw
    is_list = isinstance(parts, list | tuple) and all(isinstance(part, str) for part in parts)
    if not is_list:
        raise ValueError(f"The setting {name} must be a list of texts.")  # its value stays unsaid
    return tuple(part.strip() for part in parts if part.strip())


_CONVERTERS = {
    "bool": _to_bool,
    "int": _to_int,
    "float": _to_number,
    "str": _to_str,
    "tuple[str, ...]": _to_texts,
}


def _forget(*, setting: str = "", **_: Any) -> None:
    if setting.startswith(PREFIX):
        get.cache_clear()


setting_changed.connect(_forget, dispatch_uid="controller.conf")
