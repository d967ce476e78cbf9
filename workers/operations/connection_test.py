"""Tests the way to a cluster by a login of its own; nothing is changed there."""

from __future__ import annotations

from controller.models import HpcCluster, Kind

from ..links import carriers, clock, errors, steps, upload
from . import bootstrap, connecting, procedures, reach
from .plans import Plan

ECHO = "hpc"
ECHO_LIMIT_S = 30.0
ROUND_TRIPS = 5


def test(cluster_id: int) -> bool:
    """Do it if it was asked for; says whether it was."""
    return procedures.carry_out(cluster_id, Kind.TEST, _test)


def _test(cluster: HpcCluster, record: steps.Record) -> str:
    plan = bootstrap.plan(cluster.pk)
    carrier = reach.carrier(plan, reach.TEST, reach.directly)
    try:
        with steps.step(record, "Log in") as note:
            carrier.log_in()
            note.detail = f"{carrier.description}."
        with steps.step(record, "Run a command") as note:
            round_trip_s = _round_trip_s(carrier)
            note.detail = f"Round trip {1000 * round_trip_s:.1f} ms."
        with steps.step(record, "Look at the client") as note:
            note.detail = _look(plan, carrier)
        return f"The login works; a round trip takes {1000 * round_trip_s:.1f} ms. {note.detail}"
    finally:
        carrier.close()


def _round_trip_s(carrier: carriers.Carrier) -> float:
    """The best of a few, through a `cat` there."""
    channel = carrier.open(["/bin/cat"])
    try:
        return min(_echo_s(channel) for _ in range(ROUND_TRIPS))
    except OSError as problem:
        raise errors.CannotConnect(
            "no_command", f"A command on the cluster broke off: {problem}."
        ) from problem
    finally:
        channel.close()


def _echo_s(channel: carriers.Channel) -> float:
    begun_at = clock.now()
    channel.settimeout(ECHO_LIMIT_S)
    channel.send(ECHO.encode() + b"\n")
    said = b""
    while not said.endswith(b"\n"):
        data = channel.recv(1 << 10)
        if not data:
            raise BrokenPipeError("it ended")
        said += data
    return clock.now() - begun_at


def _look(plan: Plan, carrier: carriers.Carrier) -> str:
    archive = connecting.build_archive()
    found = upload.look(carrier, plan.installation, archive)
    python = f"Python {found.python} ({found.executable})"
    if found.kind == upload.NONE:
        return f"{python}; no client is installed yet, a bootstrap puts it there."
    if found.kind == upload.BY_HAND:
        return f"{python}; a client was installed by hand, and is used as it stands."
    is_ours = "this worker's" if found.is_ready(archive) else "not this worker's"
    return f"{python}; the client {found.current} is installed, {is_ours}."
