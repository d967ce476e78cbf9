"""The tables; services are their only writers."""

from .cluster import Carrier, DaemonMode, HpcCluster, Scheduler
from .event import JobEvent
from .job import HpcJob, new_tag
from .link import ClusterLink, LinkState, OutboxCursor, UpkeepLease, Worker
from .token import WebsocketToken
from .transfer import FileTransfer

__all__ = [
    "Carrier",
    "ClusterLink",
    "DaemonMode",
    "FileTransfer",
    "HpcCluster",
    "HpcJob",
    "JobEvent",
    "LinkState",
    "OutboxCursor",
    "Scheduler",
    "UpkeepLease",
    "WebsocketToken",
    "Worker",
    "new_tag",
]
