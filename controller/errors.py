"""The tree of errors.

HpcError
├── NotFound              no such cluster, job or file
├── Invalid               the request can't be carried out as it stands; the sentence says why
│   ├── IllegalMove       the job's status does not allow it
│   ├── NotAllSubmitted   of many jobs, some were submitted or cancelled by somebody else
│   └── BadCredentials    nobody can log in with what was entered
│       ├── NoCredentials      neither a private key nor a password
│       ├── BadKey             the private key can't be read
│       ├── PassphraseMissing  the private key is encrypted and there is no passphrase
│       └── WrongPassphrase    the passphrase does not open the private key
├── Unavailable           it may work later (transient)
│   ├── ClusterOffline    no link to the cluster now
│   ├── LinkLost          the link broke before the answer
│   ├── LeaseLost         the link's lease went to another holder
│   ├── Busy              as much is under way as is allowed at once
│   ├── TransferBroken    a file did not come, or go, whole
│   ├── Timeout           no answer within the limit
│   ├── HostUnreachable   no SSH connection to the cluster's login node
│   ├── LoginsHeldBack    no further login to the cluster is allowed yet
│   └── QueueUnreachable  the broker can't be reached
├── Refused               the cluster said no, for good
│   ├── NoSpace           the cluster's disk is full, or the account's quota used up
│   ├── LoginRefused      the cluster does not take the credentials
│   └── HostKeyRefused    its host key is not confirmed, or another than the confirmed one
├── CannotDecrypt         no key of HPC_SECRET_KEYS opens a stored secret
└── Misconfigured         a setting is missing or wrong
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class HpcError(Exception):
    """Base of all errors of this package; the message says what, to which object, what to do."""

    transient = False
    code = "error"
    retry_after_s = 0.0
    """When to try again, where that is known."""


class NotFound(HpcError):
    code = "not_found"


class Invalid(HpcError):
    code = "invalid"


class IllegalMove(Invalid):
    code = "illegal_move"


class NotAllSubmitted(Invalid):
    """Of many jobs, `accepted` (ids) were submitted, `refused` (sentences by id) were not."""

    code = "not_all_submitted"

    def __init__(self, accepted: Sequence[int], refused: Mapping[int, str]) -> None:
        self.accepted = tuple(accepted)
        self.refused = dict(refused)
        first = next(iter(self.refused.values()))
        super().__init__(
            f"{len(self.accepted)} of {len(self.accepted) + len(self.refused)} jobs were submitted;"
            f" of the others the first: {first}"
        )


class BadCredentials(Invalid):
    """Its message holds no secret."""

    code = "bad_credentials"


class NoCredentials(BadCredentials):
    code = "no_credentials"


class BadKey(BadCredentials):
    code = "bad_key"


class PassphraseMissing(BadCredentials):
    code = "passphrase_missing"


class WrongPassphrase(BadCredentials):
    code = "wrong_passphrase"


class Unavailable(HpcError):
    transient = True
    code = "unavailable"


class ClusterOffline(Unavailable):
    code = "cluster_offline"


class LinkLost(Unavailable):
    code = "link_lost"


class Busy(Unavailable):
    code = "busy"


class TransferBroken(Unavailable):
    """What was received of the file is not the file."""

    code = "transfer_broken"


class Timeout(Unavailable):
    code = "timeout"


class HostUnreachable(Unavailable):
    code = "host_unreachable"


class LoginsHeldBack(Unavailable):
    code = "logins_held_back"


class QueueUnreachable(Unavailable):
    code = "queue_unreachable"


class Refused(HpcError):
    code = "refused"


class NoSpace(Refused):
    code = "no_space"


class LoginRefused(Refused):
    code = "login_refused"


class HostKeyRefused(Refused):
    code = "host_key_refused"


class CannotDecrypt(HpcError):
    code = "cannot_decrypt"


class Misconfigured(HpcError):
    code = "misconfigured"


class LeaseLost(Unavailable):
    """The link's lease went to another holder: what this one had to say counts no more."""

    code = "lease_lost"
