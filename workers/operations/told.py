"""What is told of a failure: to a portal that asked for files, and at the end of a transfer."""

from __future__ import annotations

import logging
from typing import Any

from cluster_client.protocol import messages
from controller import errors as controller_errors

from ..links import errors, ssh_errors

logger = logging.getLogger(__name__)

CODES: dict[str, type[controller_errors.HpcError]] = {
    "path_refused": controller_errors.Refused,
    "invalid_request": controller_errors.Invalid,
    "no_such_path": controller_errors.NotFound,
    "not_found": controller_errors.NotFound,
    "no_space": controller_errors.NoSpace,
    "damaged": controller_errors.TransferBroken,
}
"""Codes of the client, and what they are here."""

LOGIN_KINDS: dict[type[errors.LinkError], type[controller_errors.HpcError]] = {
    ssh_errors.HostKeyChanged: controller_errors.HostKeyRefused,
    ssh_errors.HostKeyUnconfirmed: controller_errors.HostKeyRefused,
    ssh_errors.BudgetSpent: controller_errors.LoginsHeldBack,
    ssh_errors.Unreachable: controller_errors.HostUnreachable,
    ssh_errors.NotSsh: controller_errors.Refused,
    ssh_errors.NoCommonAlgorithm: controller_errors.Refused,
    ssh_errors.LoginError: controller_errors.LoginRefused,
}
"""Failed logins, and what they are here; the first that fits counts."""

MESSAGE_LIMIT = 4000
"""Characters of a sentence that are passed on: the cluster may have made it."""


def answered(reply: Any) -> Any:
    """The client's answer, if it is none of its refusals. Raises HpcError."""
    if isinstance(reply, messages.Error):
        fallback = controller_errors.Unavailable if reply.transient else controller_errors.Refused
        raise CODES.get(reply.code, fallback)(reply.message[:MESSAGE_LIMIT])
    return reply


def as_error(problem: Exception) -> controller_errors.HpcError:
    """What `problem` is to who asked; one that nobody foresaw is logged."""
    if isinstance(problem, controller_errors.HpcError):
        return problem
    if isinstance(problem, errors.LinkError):
        found = _kind(problem)(str(problem))
        found.retry_after_s = getattr(problem, "pause_s", 0.0)
        return found
    logger.error("files.failed", exc_info=problem)
    return controller_errors.HpcError("The files worker failed: see its log.")


def document(problem: controller_errors.HpcError) -> dict[str, Any]:
    """An error as JSON; publish.error_from makes an error of it again."""
    return {
        "code": problem.code,
        "message": str(problem)[:MESSAGE_LIMIT],
        "transient": problem.transient,
        "retry_after_s": problem.retry_after_s,
    }


def _kind(problem: errors.LinkError) -> type[controller_errors.HpcError]:
    """What a failure on the way to the cluster is to who asked."""
    for kind, told in LOGIN_KINDS.items():
        if isinstance(problem, kind):
            return told
    if isinstance(problem, errors.NoAnswer):
        return controller_errors.Timeout
    if isinstance(problem, errors.CannotConnect) and problem.reason == "cannot_decrypt":
        return controller_errors.CannotDecrypt
    return controller_errors.Unavailable if problem.transient else controller_errors.Refused
