"""The tables; services are their only writers."""

from .cluster import Carrier, DaemonMode, HpcCluster, Scheduler
from .event import JobEvent
from .job import HpcJob, new_tag
from .link import ClusterLink, LinkState, LoginState, OutboxCursor, UpkeepLease, Worker
from .login import HostKey, LoginAttempt
from .procedure import Kind, Procedure, ProcedureState, Step, StepOutcome
from .token import WebsocketToken
from .transfer import FileTransfer

__all__ = [
    "Carrier",
    "ClusterLink",
    "DaemonMode",
    "FileTransfer",
    "HostKey",
    "HpcCluster",
    "HpcJob",
    "JobEvent",
    "Kind",
    "LinkState",
    "LoginAttempt",
    "LoginState",
    "OutboxCursor",
    "Procedure",
    "ProcedureState",
    "Scheduler",
    "Step",
    "StepOutcome",
    "UpkeepLease",
    "WebsocketToken",
    "Worker",
    "new_tag",
]
