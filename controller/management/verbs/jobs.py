"""`hpc job ...`, but for what waits."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from django.utils import timezone

from ... import conf, descriptions, errors, queries
from ...lifecycle import JobStatus
from ...models import HpcJob
from ...services import files, jobs
from . import arguments, clusters, copying, waits
from .terminal import Console

LISTED = 50


def add_parsers(nouns: Any) -> None:
    """Add the noun `job` with its verbs."""
    job = nouns.add_parser("job", help="submit, follow, cancel and delete jobs")
    verbs = job.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_submit(verbs)
    _add_list(verbs)
    _reading(_of_one(verbs, "show", "one job", show))
    waiting = _of_many(verbs, "wait", "wait until jobs have ended", wait)
    _add_limit(_reading(waiting))
    _of_many(verbs, "cancel", "cancel jobs", cancel)
    _of_many(verbs, "delete", "delete the data of jobs that have ended", delete)
    _reading(_of_one(verbs, "events", "what happened to a job", events))
    printing = _of_one(verbs, "output", "print a job's standard output", output)
    # Not `stderr`: an option of that name is where Django's own commands write to.
    printing.add_argument(
        "--stderr", dest="is_error", action="store_true", help="its standard error instead"
    )


def submit(console: Console, options: Namespace) -> int:
    """Submit a script; with --wait exit with 0 only if the job completed."""
    text = _script(options.script)
    cluster = clusters.find(options.cluster) if options.cluster else None
    parameters: dict[str, Any] = {"script": text, "resources": dict(options.resource)}
    job = jobs.job_class()(
        name=options.name, cluster=cluster, environment=dict(options.environment)
    )
    jobs.submit(job, parameters)
    tell = console.note if options.json else console.line
    tell(f"job {job.pk}: submitted to {job.cluster or 'no cluster yet'}, tag {job.tag}")
    if job.cluster is not None and not queries.is_connected(job.cluster):
        console.note(
            f"Cluster {job.cluster} has no link now; the job waits for one"
            f" (hpc cluster connect {job.cluster})."
        )
    status = waits.wait(console, tell, [job.pk], options.limit) if options.wait else 0
    if options.json:
        console.document(descriptions.describe_job(jobs.load(job.pk)))
    return status


def list_some(console: Console, options: Namespace) -> int:
    """The newest jobs."""
    rows = queries.with_confirmation(HpcJob.objects.select_related("cluster"))
    if options.cluster:
        rows = rows.filter(cluster=clusters.find(options.cluster))
    if options.status:
        rows = rows.filter(job_status__in=options.status)
    found = [descriptions.describe_job(job) for job in rows[: options.limit]]
    if options.json:
        console.document(found)
        return 0
    head = ("ID", "NAME", "CLUSTER", "STATUS", "EXIT", "WHY")
    console.table(head, [_row(described) for described in found])
    return 0


def show(console: Console, options: Namespace) -> int:
    """One job."""
    described = descriptions.describe_job(jobs.load(options.id))
    if options.json:
        console.document(described)
        return 0
    described["last confirmed"] = _ago(described.pop("last_confirmed"))
    described |= {f"time {name}": time for name, time in described.pop("times").items()}
    described |= {f"blocked {n}": v for n, v in (described.pop("blocked") or {}).items()}
    resources = described.pop("resources")
    described["resources"] = ", ".join(f"{n}={v}" for n, v in resources.items())
    facts = [item for item in described.items() if item[1] not in (None, "")]
    console.table(("WHAT", "VALUE"), facts)
    return 0


def wait(console: Console, options: Namespace) -> int:
    """Wait until the jobs have ended; 0 only if all completed."""
    for job_id in options.ids:
        jobs.load(job_id)
    tell = console.note if options.json else console.line
    status = waits.wait(console, tell, options.ids, options.limit)
    if options.json:
        console.document([descriptions.describe_job(jobs.load(job_id)) for job_id in options.ids])
    return status


def cancel(console: Console, options: Namespace) -> int:
    """Cancel the jobs."""
    return _each(console, options.ids, jobs.cancel)


def delete(console: Console, options: Namespace) -> int:
    """Delete the jobs' data."""
    return _each(console, options.ids, jobs.delete)


def events(console: Console, options: Namespace) -> int:
    """The job's history."""
    job = jobs.load(options.id)
    found = [descriptions.describe_event(event) for event in job.events.all()]
    if options.json:
        console.document(found)
        return 0
    rows = [(e["at"], e["event"], e["before"], e["after"], e["source"], e["cause"]) for e in found]
    console.table(("AT", "EVENT", "BEFORE", "AFTER", "SOURCE", "CAUSE"), rows)
    return 0


def output(console: Console, options: Namespace) -> int:
    """Print the job's output as it stands now."""
    job = jobs.load(options.id)
    path = files.STDERR if options.is_error else files.STDOUT
    copying.pour(console, files.read_whole(job, path), None, path, is_raw=False)
    return 0


def _add_submit(verbs: Any) -> None:
    parser = _reading(verbs.add_parser("submit", help="submit a script"))
    parser.add_argument("--script", required=True, metavar="FILE", help="the script; - is stdin")
    parser.add_argument("--cluster", metavar="NAME", help="left out: the cluster is chosen")
    parser.add_argument("--name", default="", help="name for people")
    parser.add_argument(
        "--resource",
        action="append",
        default=[],
        type=_resource,
        metavar="NAME=VALUE",
        help=f"one of {', '.join(queries.RESOURCES)}",
    )
    parser.add_argument(
        "--environment", action="append", default=[], type=_pair, metavar="NAME=VALUE"
    )
    parser.add_argument("--wait", action="store_true", help="follow the job to its end")
    _add_limit(parser)
    parser.set_defaults(run=submit)


def _add_list(verbs: Any) -> None:
    parser = _reading(verbs.add_parser("list", help="the newest jobs"))
    parser.add_argument("--cluster", metavar="NAME")
    parser.add_argument("--status", action="append", type=_status, metavar="STATUS")
    parser.add_argument(
        "--limit", type=arguments.count, default=LISTED, metavar="N", help="how many"
    )
    parser.set_defaults(run=list_some)


def _reading(parser: ArgumentParser) -> ArgumentParser:
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser


def _add_limit(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--limit", type=waits.seconds, default=waits.LIMIT_S, metavar="S", help="longest wait (s)"
    )


def _of_one(verbs: Any, verb: str, purpose: str, run: Callable[..., int]) -> ArgumentParser:
    parser: ArgumentParser = verbs.add_parser(verb, help=purpose)
    parser.add_argument("id", type=arguments.count, help="id of the job")
    parser.set_defaults(run=run)
    return parser


def _of_many(verbs: Any, verb: str, purpose: str, run: Callable[..., int]) -> ArgumentParser:
    parser: ArgumentParser = verbs.add_parser(verb, help=purpose)
    parser.add_argument("ids", type=arguments.count, nargs="+", metavar="id", help="ids of jobs")
    parser.set_defaults(run=run)
    return parser


def _each(console: Console, ids: list[int], act: Callable[[HpcJob], JobStatus]) -> int:
    failures = 0
    for job_id in ids:
        try:
            console.line(f"job {job_id}: {act(jobs.load(job_id)).label}")
        except errors.HpcError as error:
            console.note(str(error))
            failures += 1
    return 1 if failures else 0


def _row(described: dict[str, Any]) -> tuple[Any, ...]:
    why = (described["blocked"] or {}).get("reason") or described["details"]
    exited = (
        described["exit_code"] if described["signal"] is None else f"signal {described['signal']}"
    )
    names = ("id", "name", "cluster", "status")
    return (*(described[name] for name in names), exited, why.partition("\n")[0])


def _ago(time: str | None) -> str | None:
    if time is None:
        return None
    age_s = (timezone.now() - datetime.fromisoformat(time)).total_seconds()
    return f"{max(age_s, 0):.0f} s ago ({time})"


def _script(path: str) -> str:
    limit_bytes = conf.get().script_limit_bytes
    try:
        with sys.stdin.buffer if path == "-" else Path(path).open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise errors.Invalid(f"The script {path} can't be read: {error.strerror}.") from error
    if len(data) > limit_bytes:
        raise errors.Invalid(f"The script {path} is longer than {limit_bytes} bytes.")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise errors.Invalid(f"The script {path} is no UTF-8 text.") from error


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name, value


def _resource(text: str) -> tuple[str, int | str]:
    name, value = _pair(text)
    if name not in queries.RESOURCES:
        raise ArgumentTypeError(f"{name!r} is none of {', '.join(queries.RESOURCES)}")
    if queries.RESOURCES[name] is str:
        return name, value
    return name, arguments.count(value)


def _status(text: str) -> int:
    try:
        return JobStatus[text.upper().replace("-", "_")].value
    except KeyError as error:
        names = ", ".join(status.name for status in JobStatus)
        raise ArgumentTypeError(f"{text!r} is none of {names}") from error
