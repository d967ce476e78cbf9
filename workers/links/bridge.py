"""The way from a carrier's channel to the cluster client: which Python, and its first line.

The client's first word is one line, `HPC-BRIDGE 1 {json}`; start-up files may print before it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import carriers, clock, errors

MARKER = b"HPC-BRIDGE 1 "
NOISE_LIMIT_BYTES = 256 << 10
LINE_LIMIT_BYTES = 64 << 10
STATUS_LIMIT_S = 30.0

NO_BRIDGE = "no_bridge"
"""Reason of a CannotConnect: what ran said nothing that the client says."""
NO_CLIENT = "no_client"
"""Reason of a CannotConnect: nothing is installed in the client's directory."""

FIND_PYTHON = """\
say() { printf 'HPC-BRIDGE 1 {"status": "%s", "detail": "%s"}\\n' "$1" "$2"; exit 1; }
fits() {
    "$1" -S -E -c 'import sys; sys.exit(sys.version_info < (3, 9))' </dev/null >/dev/null 2>&1
}
say_no_python() {
    code='import sys; print("%d.%d.%d" % sys.version_info[:3])'
    old=$("$1" -S -E -c "$code" </dev/null 2>/dev/null)
    case $old in *[!0-9.]*) old= ;; esac
    say no_python "$old"
}
find_python() {
    if [ -n "$1" ]; then
        fits "$1" || say_no_python "$1"
        python=$1
        return
    fi
    for python in "$2/venv/bin/python" python3.13 python3.12 python3.11 python3.10 python3.9 python3
    do
        fits "$python" && return
    done
    say_no_python python3
}
"""
"""POSIX sh, because the login shell of an account may be anything. Versions that are named on
PATH but don't run (pyenv's shims) are passed over."""

SET_UP = 'eval "$1" >&2 </dev/null; shift\n'

COMMAND = (
    FIND_PYTHON
    + """\
client=$1; wanted=$2; shift 2
[ -f "$client" ] || say no_client
find_python "$wanted" "${client%/*}"
exec "$python" -E "$client" "$@"
"""
)
PROGRAM = (
    FIND_PYTHON
    + """\
directory=$1; wanted=$2; program=$3; shift 3
find_python "$wanted" "$directory"
printf 'HPC-BRIDGE 1 '
exec "$python" -E -c "$program" "$@"
"""
)
"""The same for a program that answers with one line of JSON."""


@dataclass(frozen=True)
class Installation:
    """Where the client is on the cluster, and the Python for it if an admin named one.

    `setup_commands` run before a Python is looked for: `module load python`.
    """

    client_path: str
    python: str = ""
    setup_commands: str = ""

    def command(self, *arguments: str) -> list[str]:
        """The argv that runs `client.py` with `arguments`."""
        client = self.client_path.rstrip("/") + "/client.py"
        return self._shell(COMMAND, client, self.python, *arguments)

    def program(self, text: str, *arguments: str) -> list[str]:
        """The argv that runs the Python program `text` by the Python of the client."""
        return self._shell(PROGRAM, self.client_path.rstrip("/"), self.python, text, *arguments)

    def _shell(self, code: str, *words: str) -> list[str]:
        if not self.setup_commands.strip():
            return ["/bin/sh", "-c", code, "sh", *words]
        # `module` is a function that the profile of a login shell defines.
        return ["/bin/bash", "-l", "-c", SET_UP + code, "bash", self.setup_commands, *words]


@dataclass(frozen=True)
class Marker:
    """What the client said first."""

    status: str
    host: str = ""
    detail: str = ""
    code: str = ""
    versions: tuple[int, ...] = ()
    build_hash: str = ""
    last_death: str = ""
    fields: dict[str, Any] = field(default_factory=dict)


def open_client(
    carrier: carriers.Carrier, installation: Installation, arguments: Sequence[str], limit_s: float
) -> tuple[carriers.Channel, Marker]:
    """Run the client and read its first line. Raises CannotConnect; then nothing is left open."""
    channel = carrier.open(installation.command(*arguments))
    try:
        marker = read_marker(channel, limit_s)
        refuse_absent(marker, installation)
    except BaseException:
        channel.close()
        raise
    return channel, marker


def read_marker(channel: carriers.Channel, limit_s: float) -> Marker:
    """Skip what start-up files printed, up to the client's first line. Raises CannotConnect."""
    ends_at = clock.now() + limit_s
    noise = b""
    while MARKER not in noise:
        noise += _receive(channel, ends_at, "the client's first line", noise)
        if len(noise) > NOISE_LIMIT_BYTES:
            raise errors.CannotConnect(
                NO_BRIDGE,
                f"The account's start-up files printed over {NOISE_LIMIT_BYTES >> 10} KiB before "
                "the client spoke. Make them silent for sessions without a terminal.",
                transient=False,
            )
    channel.unread(noise[noise.index(MARKER) + len(MARKER) :])
    said = read_json_line(channel, max(0.1, ends_at - clock.now()))
    return Marker(
        status=str(said.get("status", "")),
        host=str(said.get("host", "")),
        detail=str(said.get("detail", "")),
        code=str(said.get("code", "")),
        versions=tuple(v for v in said.get("versions") or () if isinstance(v, int)),
        build_hash=str(said.get("build_hash") or ""),
        last_death=str(said.get("last_death") or ""),
        fields=said,
    )


def read_json_line(channel: carriers.Channel, limit_s: float) -> dict[str, Any]:
    """One line of JSON, an object. Raises CannotConnect."""
    line = _receive_line(channel, clock.now() + limit_s, "a line of the client")
    try:
        said = json.loads(line)
    except ValueError as problem:
        raise errors.CannotConnect(
            NO_BRIDGE, f"The client's line is no JSON: {_printable(line)}"
        ) from problem
    if not isinstance(said, dict):
        raise errors.CannotConnect(NO_BRIDGE, f"The client's line is odd: {_printable(line)}")
    return said


def status(
    carrier: carriers.Carrier, installation: Installation, key: str, limit_s: float = STATUS_LIMIT_S
) -> dict[str, Any]:
    """What `client.py status` tells of the daemon of `key`. Raises CannotConnect."""
    channel = carrier.open(installation.command("status", key, "--json"))
    try:
        ends_at = clock.now() + limit_s
        noise = b""
        while len(noise) <= NOISE_LIMIT_BYTES:
            line = _receive_line(channel, ends_at, "the daemon's status", noise)
            with contextlib.suppress(ValueError):
                said = json.loads(line.removeprefix(MARKER))
                if isinstance(said, dict) and "status" in said:
                    refuse_absent(Marker(str(said["status"])), installation)
                    return said
            noise += line
    finally:
        channel.close()
    raise errors.CannotConnect(NO_BRIDGE, "The client does not tell of its daemon.")


def start_daemon(
    carrier: carriers.Carrier,
    installation: Installation,
    key: str,
    document: dict[str, Any],
    limit_s: float,
) -> dict[str, Any]:
    """Start a daemon by `document`, sent on stdin; the client's closing words."""
    ends_at = clock.now() + limit_s
    channel, marker = open_client(carrier, installation, ("start", key), limit_s)
    try:
        if marker.status != "ready":
            return marker.fields
        channel.settimeout(max(0.1, ends_at - clock.now()))
        try:
            channel.send(json.dumps(document).encode() + b"\n")
        except OSError as problem:
            raise _broken(channel, "the start document", str(problem), b"") from problem
        return read_json_line(channel, max(0.1, ends_at - clock.now()))
    finally:
        channel.close()


def refuse_absent(marker: Marker, installation: Installation) -> None:
    """Raise CannotConnect where the client or a Python for it is missing."""
    if marker.status == "no_client":
        raise errors.CannotConnect(
            NO_CLIENT,
            f"There is no whole client in {installation.client_path} on the cluster. Bootstrap "
            "the cluster, or correct its client path.",
            transient=False,
        )
    if marker.status == "no_python":
        wanted = installation.python or "python3.13 ... python3.9 or python3 on PATH"
        older = f"; {installation.python or 'python3'} is {marker.detail}" if marker.detail else ""
        raise errors.CannotConnect(
            "no_python",
            f"No Python 3.9 or newer was found on the cluster ({wanted}{older}). Name one in the "
            "cluster's Python field, or let its set-up commands load one.",
            transient=False,
        )


def _receive_line(
    channel: carriers.Channel, ends_at: float, what: str, before: bytes = b""
) -> bytes:
    line = b""
    while b"\n" not in line:
        line += _receive(channel, ends_at, what, before + line)
        if len(line) > LINE_LIMIT_BYTES:
            raise errors.CannotConnect(NO_BRIDGE, "The client's line has no end.")
    line, _, rest = line.partition(b"\n")
    channel.unread(rest)
    return line


def _receive(channel: carriers.Channel, ends_at: float, what: str, so_far: bytes) -> bytes:
    left_s = ends_at - clock.now()
    if left_s <= 0:
        raise _broken(channel, what, "it did not come in time", so_far)
    channel.settimeout(left_s)
    try:
        data = channel.recv(16 << 10)
    except TimeoutError as problem:
        raise _broken(channel, what, "it did not come in time", so_far) from problem
    except OSError as problem:
        raise _broken(channel, what, str(problem), so_far) from problem
    if not data:
        raise _broken(channel, what, "the command ended", so_far)
    return data


def _broken(channel: carriers.Channel, what: str, why: str, so_far: bytes) -> errors.CannotConnect:
    words = channel.stderr_tail() or _printable(so_far)
    said = f" It said: {_last_line(words)}" if words else ""
    return errors.CannotConnect(NO_BRIDGE, f"Waited for {what}: {why}.{said}")


def _last_line(words: str) -> str:
    return words.strip().splitlines()[-1][:500] if words.strip() else ""


def _printable(data: bytes) -> str:
    text = data[-1000:].decode("utf-8", "replace")
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text).strip()
