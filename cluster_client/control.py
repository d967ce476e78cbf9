"""What people ask of a daemon from the same account: `status` and `stop`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any, Optional

from . import build, dial, registry, sources
from .protocol import messages

STATUS_LIMIT_S = 10.0
STATUS_LIMIT_BYTES = 1 << 20
STOP_LIMIT_S = 90.0
LOOK_INTERVAL_S = 0.05


def status_command(key: str, as_json: bool) -> int:
    """`client.py status`: 0 if a daemon answers, else 1."""
    sources.parse_key(key)
    state_directory = os.path.join(sources.state_root(sources.client_path()), key)
    found = dial.find(state_directory)
    daemon = None
    if found.link is not None:
        try:
            daemon = _ask(found)
        except (OSError, ValueError) as error:
            found = found._replace(status="stale", detail=f"The daemon does not answer: {error}.")
    document = {
        "key": key,
        "status": found.status,
        "detail": found.detail,
        "host": found.host,
        "last_death": found.last_death,
        "build_hash": found.build_hash,
        "versions": list(found.versions),
        "installed": {
            "version": build.VERSION,
            "build_hash": build.build_hash(),
            "versions": list(messages.VERSIONS),
        },
        "daemon": daemon,
    }
    sys.stdout.write(json.dumps(document) + "\n" if as_json else _page(document))
    return 0 if found.status == "connected" else 1


def stop_command(key: str) -> int:
    """`client.py stop`: end the daemon on this host; its jobs go on."""
    sources.parse_key(key)
    state_directory = os.path.join(sources.state_root(sources.client_path()), key)
    entry = registry.read(state_directory)
    if entry is None:
        sys.stdout.write(f"No daemon is registered for {key}.\n")
        return 0
    if not entry.is_here():
        sys.stderr.write(f"The daemon for {key} runs on {entry.host}: stop it there.\n")
        return 1
    if not terminate(entry):
        sys.stdout.write(f"The daemon for {key}, pid {entry.pid}, is dead already.\n")
        return 0
    deadline = time.monotonic() + STOP_LIMIT_S
    while entry.is_alive():
        if time.monotonic() > deadline:
            sys.stderr.write(f"The daemon, pid {entry.pid}, did not end in {STOP_LIMIT_S:g} s.\n")
            return 1
        time.sleep(LOOK_INTERVAL_S)  # not our child: there is nothing to wait for
    sys.stdout.write(f"The daemon for {key}, pid {entry.pid}, has ended. Its jobs go on.\n")
    return 0


def terminate(entry: registry.Entry) -> bool:
    """Send SIGTERM to the very process of `entry`; False if it is gone."""
    handle: Optional[int] = None
    try:
        if hasattr(os, "pidfd_open"):
            handle = os.pidfd_open(entry.pid)
    except OSError:
        handle = None  # gone, or a kernel before 5.3
    try:
        if not entry.is_alive():
            return False
        if handle is not None:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        else:
            os.kill(entry.pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    finally:
        if handle is not None:
            os.close(handle)
    return True


def _ask(found: dial.Answer) -> Any:
    link = found.link
    if link is None:
        raise OSError("not connected")
    with link:
        link.settimeout(STATUS_LIMIT_S)
        link.sendall(b"GET /status HTTP/1.1\r\nHost: daemon\r\n\r\n")
        answer = b""
        while len(answer) < STATUS_LIMIT_BYTES:
            data = link.recv(1 << 16)
            if not data:
                break
            answer += data
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator or b" 200 " not in head.split(b"\r\n")[0] + b" ":
        raise ValueError("its answer is no status")
    return json.loads(body)


def _page(document: dict[str, Any]) -> str:
    lines = [f"{document['key']}: {document['status']}. {document['detail']}"]
    if document["last_death"]:
        lines.append(f"  last death: {document['last_death']}")
    daemon = document["daemon"]
    if daemon is not None:
        lines.append(f"  version {daemon['version']} ({daemon['build_hash']}), {daemon['mode']}")
        link = "connected" if daemon["link"]["connected"] else "not connected"
        lines.append(f"  server {link}, epoch {daemon['link']['epoch']}")
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(daemon["started_at"]))
        lines.append(f"  started {started}, generation {daemon['generation']}")
        for name in ("scheduler", "login_environment", "jobs", "unacknowledged_events", "commands"):
            if name in daemon["engine"]:
                lines.append(f"  {name.replace('_', ' ')}: {daemon['engine'][name]}")
    return "\n".join(lines) + "\n"
