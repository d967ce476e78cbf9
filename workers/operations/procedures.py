"""What workers do on request beside links: each claims its procedure, and writes its steps.

A procedure that another worker claimed is left alone, so a nudge that comes twice does nothing.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable

from controller.models import HpcCluster, Kind, Procedure
from controller.services import procedures

from ..links import errors, steps

logger = logging.getLogger(__name__)

Work = Callable[[HpcCluster, steps.Record], str]
"""Does it, records steps, returns the closing sentence. Raises CannotConnect."""


def carry_out(cluster_id: int, kind: Kind, work: Work) -> bool:
    """Do what of the kind waits for the cluster; says whether something did."""
    claimed = procedures.claim_for(cluster_id, kind, f"{socket.gethostname()}.{os.getpid()}")
    if claimed is None:
        return False
    _carry_out(claimed, work)
    return True


def _carry_out(procedure: Procedure, work: Work) -> None:
    def record(step: steps.Step) -> None:
        procedures.note(procedure.pk, step.name, step.outcome, step.took_s, step.detail)

    try:
        sentence = work(procedure.cluster, record)
    except errors.CannotConnect as problem:
        procedures.finish(procedure.pk, problem.reason, str(problem))
    except Exception as problem:
        logger.exception("procedure.failed", extra={"procedure": procedure.pk})
        procedures.finish(
            procedure.pk,
            "failed",
            f"The worker failed ({type(problem).__name__}): its log tells more.",
        )
    else:
        procedures.finish(procedure.pk, detail=sentence)
