"""The verbs of a job: submit, cancel, delete; and the writers that workers call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from django.core.exceptions import ValidationError
from django.db import DatabaseError, transaction

from .. import errors, publish, queries
from ..lifecycle import FINAL, IN_SCHEDULER, NEEDS_ACTION, Event, JobStatus
from ..models import HpcJob
from ..models.job import LIFECYCLE_FIELDS
from . import parameters as asked
from . import placement
from .moves import (
    Outcome,
    apply,
    block,
    claim,
    claim_again,
    defer,
    in_future,
    job_class,
    load,
    make_due,
    unblock,
)
from .placement import place_waiting

__all__ = [
    "RESOURCES",
    "Outcome",
    "apply",
    "block",
    "cancel",
    "claim",
    "claim_again",
    "declare_lost",
    "defer",
    "delete",
    "in_future",
    "job_class",
    "load",
    "look_again",
    "place_waiting",
    "redraft",
    "render_script",
    "submit",
    "submit_many",
    "unblock",
    "validate",
]


T = TypeVar("T")

RESOURCES = tuple(queries.RESOURCES)
"""Names of the columns that say what a job asks of its scheduler."""


BATCH = 100
"""Jobs written in one transaction: SQLite has one writer, and leases must be renewed meanwhile."""


@dataclass(frozen=True)
class Accepted:
    """A stored draft, checked, with the columns that its submission sets."""

    job: HpcJob
    columns: dict[str, Any]
    cluster_id: int | None


def submit(job: HpcJob, parameters: Any, *, source: str = "user") -> JobStatus:
    """Take the job over: check, choose a cluster, render the script, DRAFT -> PENDING.

    Raises Invalid, NotFound or IllegalMove, and changes nothing then. The job's own render() and
    choose_cluster() run outside of any transaction but the caller's.
    """
    _check(job, parameters)
    with _stored([job]):
        accepted = _accept(job, parameters)
        with transaction.atomic():
            _enter(accepted, source)
            if accepted.cluster_id is not None:
                publish.submit_job(accepted.cluster_id, job.pk)
    job.refresh_from_db()
    return JobStatus.PENDING  # as it was accepted; a worker may have it already


def submit_many(pairs: Iterable[tuple[HpcJob, Any]], *, source: str = "user") -> list[JobStatus]:
    """Submit many (job, parameters) at once, with one nudge a cluster.

    First all are checked, rendered and given clusters: one that is refused then is raised as by
    `submit`, and none is submitted. Then they enter in batches of BATCH, a transaction each. What
    somebody else submitted or cancelled in between is left out; the rest enter all the same, and
    NotAllSubmitted tells which did. If the database fails then, its error is raised: batches that
    were committed stay submitted, all others stay drafts, as the rows' statuses tell.
    """
    given = list(pairs)
    for job, parameters in given:
        _check(job, parameters)
    with _stored([job for job, _ in given]):
        accepted = _accept_all(given)
    refused = _enter_all(accepted, source)
    for one in accepted:
        one.job.refresh_from_db()
    if refused:
        entered = [one.job.pk for one in accepted if one.job.pk not in refused]
        raise errors.NotAllSubmitted(entered, refused)
    return [JobStatus.PENDING] * len(accepted)


def cancel(job: HpcJob, *, source: str = "user") -> JobStatus:
    """Cancel the job: at once if no cluster has it, else its worker is nudged."""
    with transaction.atomic():
        outcome = apply(job.pk, Event.CANCEL, source=source)
        _refuse_unless(outcome, job, "there is nothing to cancel")
        if outcome.status is JobStatus.CANCELLING:
            publish.cancel_job(_cluster_id(job), job.pk)
    job.refresh_from_db()
    return outcome.status


def delete(job: HpcJob, *, source: str = "user") -> JobStatus:
    """Delete the data of a job that has ended; what never reached a cluster is deleted at once."""
    with transaction.atomic():
        outcome = apply(job.pk, Event.DELETE, source=source)
        _refuse_unless(outcome, job, "only the data of a job that has ended can be deleted")
        attempt, cluster_id = HpcJob._base_manager.values_list("attempt", "cluster_id").get(
            pk=job.pk
        )
        if cluster_id is None or not attempt:
            outcome = apply(job.pk, Event.CONFIRM_DELETE, source=source)  # it never got there
        else:
            publish.delete_job(cluster_id, job.pk)
    job.refresh_from_db()
    return outcome.status


def look_again(job: HpcJob) -> None:
    """Let a blocked job go on: whatever is due for it is tried at once.

    If its cluster told nothing of it, the client is asked again, and it stays blocked till then.
    """
    with transaction.atomic():
        row = HpcJob._base_manager.select_for_update().get(pk=job.pk)
        is_lost = row.status in IN_SCHEDULER and row.blocked_reason in queries.LOST_SIGHT
        if is_lost:
            make_due(job.pk)
        elif row.blocked_reason != NEEDS_ACTION:  # that passes once the cluster says so
            unblock(job.pk)
        if job.cluster_id is not None:
            publish.drain_cluster(job.cluster_id)
    job.refresh_from_db()


def declare_lost(job: HpcJob, *, source: str = "admin") -> JobStatus:
    """End a job as ERROR of which no trace is left on its cluster."""
    cause = "Declared lost: no trace of it was left on the cluster."
    outcome = apply(job.pk, Event.DECLARE_LOST, source=source, cause=cause)
    _refuse_unless(outcome, job, "only a job that a cluster has can be declared lost")
    job.refresh_from_db()
    return job.status


def validate(job: HpcJob) -> None:
    """Check what a form says of a draft; raises Django's ValidationError by field."""
    problems: dict[str, str] = {}
    job.environment = {} if job.environment is None else job.environment
    checks: dict[str, Callable[[], object]] = {
        "environment": lambda: asked.environment(job.environment),
        "job_parameters": lambda: asked.check_json(job.job_parameters),
    }
    if job.script:
        # A browser sends a text area's line ends as CRLF.
        # Source: https://html.spec.whatwg.org/multipage/form-control-infrastructure.html
        job.script = job.script.replace("\r\n", "\n")
        checks["script"] = lambda: asked.script(job.script)
    for name, check in checks.items():
        try:
            check()
        except errors.Invalid as error:
            problems[name] = str(error)
    if problems:
        raise ValidationError(problems)


def redraft(job: HpcJob, **columns: Any) -> bool:
    """Change what services keep of a DRAFT (script, cluster); says whether it still was one."""
    drafts = HpcJob._base_manager.filter(pk=job.pk, job_status=JobStatus.DRAFT)
    return bool(drafts.update(**columns))


def render_script(job: HpcJob, parameters: Any) -> str:
    """The body of the script: the template named by parameters["template"]."""
    return asked.render(job, parameters)


def _check(job: HpcJob, parameters: Any) -> None:
    """Refuse what can be refused without asking the database or the portal's own code."""
    asked.check_json(parameters)
    asked.name(job.name)
    asked.environment(job.environment)
    asked.resources(parameters)
    if _is_plain(parameters):
        asked.script(parameters["script"])


def _is_plain(parameters: Any) -> bool:
    return isinstance(parameters, dict) and "script" in parameters


@contextmanager
def _stored(jobs: Iterable[HpcJob]) -> Iterator[None]:
    """Stores jobs that are new, so that they have ids; takes them away again on any error."""
    new = [job for job in jobs if job._state.adding]
    try:
        for batch in _batches(new):
            with transaction.atomic():
                for job in batch:
                    job.save()
        yield
    except BaseException:
        _take_back([job for job in new if not job._state.adding])
        raise


def _take_back(drafts: list[HpcJob]) -> None:
    # Where the caller's transaction, or the database, is lost already, the first error counts.
    with suppress(DatabaseError):
        ids = [job.pk for job in drafts]
        HpcJob._base_manager.filter(pk__in=ids, job_status=JobStatus.DRAFT).delete()
    for job in drafts:
        job.pk = job.id = None
        job._state.adding = True


def _accept_all(given: list[tuple[HpcJob, Any]]) -> list[Accepted]:
    """Each in turn, so that a cluster chosen for one counts when the next one's is chosen."""
    accepted = []
    with queries.placing() as placed:
        for job, parameters in given:
            accepted.append(_accept(job, parameters))
            chosen = accepted[-1].cluster_id
            placed.update([] if chosen is None else [chosen])
    return accepted


def _accept(given: HpcJob, parameters: Any) -> Accepted:
    job = _of_job_class(given)
    if job.status is not JobStatus.DRAFT:
        raise errors.IllegalMove(
            f"Job {job.pk} is {job.status.label}: only a draft can be submitted; make a new job."
        )
    for name, value in asked.resources(parameters).items():
        setattr(job, name, value)
    text = parameters["script"] if _is_plain(parameters) else job.render(parameters)
    columns: dict[str, Any] = queries.resources_of(job)
    columns |= {"script": asked.script(text), "job_parameters": parameters}
    columns["environment"] = asked.environment(job.environment)
    cluster = placement.choose(job, parameters)
    columns |= {"cluster": cluster} if cluster else placement.waiting()
    return Accepted(given, columns, cluster.pk if cluster else None)


def _of_job_class(given: HpcJob) -> HpcJob:
    """The stored job as HPC_JOB_CLASS: its life as the row has it, all else as it was given."""
    if isinstance(given, job_class()):
        explicit = given.cluster
        try:
            given.refresh_from_db(fields=list(LIFECYCLE_FIELDS))
        except HpcJob.DoesNotExist as error:
            raise errors.NotFound(f"There is no job {given.pk}.") from error
        given.cluster = explicit or given.cluster
        return given
    job = load(given.pk)
    for field in HpcJob._meta.concrete_fields:
        if field.name not in LIFECYCLE_FIELDS:
            setattr(job, field.attname, getattr(given, field.attname))
    job.cluster = given.cluster or job.cluster
    return job


def _enter_all(accepted: list[Accepted], source: str) -> dict[int, str]:
    """Enter them batch by batch; returns the sentences on those refused, by id."""
    refused: dict[int, str] = {}
    clusters: set[int] = set()
    try:
        for batch in _batches(accepted):
            with transaction.atomic():
                sentences = _enter_batch(batch, source)
            refused |= sentences
            clusters |= {
                one.cluster_id
                for one in batch
                if one.cluster_id is not None and one.job.pk not in sentences
            }
    finally:
        for cluster_id in sorted(clusters):
            publish.drain_cluster(cluster_id)
    return refused


def _enter_batch(batch: list[Accepted], source: str) -> dict[int, str]:
    sentences = {}
    for one in batch:
        try:
            with transaction.atomic():
                _enter(one, source)
        except errors.HpcError as error:
            sentences[one.job.pk] = str(error)
    return sentences


def _batches(items: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def _enter(accepted: Accepted, source: str) -> None:
    """In the caller's transaction: move the draft, if it still is one, and store its changes."""
    job = accepted.job
    outcome = apply(job.pk, Event.SUBMIT, source=source, updates=accepted.columns)
    _refuse_unless(outcome, job, "it was submitted or cancelled meanwhile")
    for name in accepted.columns.keys() - LIFECYCLE_FIELDS:
        setattr(job, name, accepted.columns[name])
    job.save()


def _refuse_unless(outcome: Outcome, job: HpcJob, sentence: str) -> None:
    if not outcome.is_legal:
        ended = "has ended as " if outcome.status in FINAL else "is "
        raise errors.IllegalMove(f"Job {job.pk} {ended}{outcome.status.label}: {sentence}.")


def _cluster_id(job: HpcJob) -> int:
    cluster_id = HpcJob._base_manager.values_list("cluster_id", flat=True).get(pk=job.pk)
    if cluster_id is None:
        raise errors.Invalid(f"Job {job.pk} has no cluster.")
    return cluster_id
