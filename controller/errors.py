"""The tree of errors.

HpcError
├── NotFound              no such cluster, job or file
├── Invalid               the request can't be carried out as it stands; the sentence says why
│   └── IllegalMove       the job's status does not allow it
├── Unavailable           it may work later (transient)
│   ├── ClusterOffline    no link to the cluster now
│   ├── LinkLost          the link broke before the answer
│   ├── LeaseLost         the link's lease went to another holder
│   ├── Busy              as much is under way as is allowed at once
│   ├── Timeout           no answer within the limit
│   └── QueueUnreachable  the broker can't be reached
├── Refused               the cluster said no, for good
└── Misconfigured         a setting is missing or wrong
"""

from __future__ import annotations


class HpcError(Exception):
    """Base of all errors of this package; the message says what, to which object, what to do."""

    transient = False
    code = "error"


class NotFound(HpcError):
    code = "not_found"


class Invalid(HpcError):
    code = "invalid"


class IllegalMove(Invalid):
    code = "illegal_move"


class Unavailable(HpcError):
    transient = True
    code = "unavailable"


class ClusterOffline(Unavailable):
    code = "cluster_offline"


class LinkLost(Unavailable):
    code = "link_lost"


class Busy(Unavailable):
    code = "busy"


class Timeout(Unavailable):
    code = "timeout"


class QueueUnreachable(Unavailable):
    code = "queue_unreachable"


class Refused(HpcError):
    code = "refused"


class Misconfigured(HpcError):
    code = "misconfigured"


class LeaseLost(Unavailable):
    """The link's lease went to another holder: what this one had to say counts no more."""

    code = "lease_lost"
