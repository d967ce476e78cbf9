"""What can go wrong with a link.

LinkError
├── CannotConnect      no link could be made; `reason` is a word, the message a sentence
│   └── LoginError     the way in by SSH; drawn in ssh_errors.py
├── LinkClosed         the link ended before the answer
├── LinkMute           the lease is in doubt: nothing may be sent now
├── NoAnswer           no answer within the deadline
└── LinkOverfull       more waits to be sent than the link may hold

`transient` says whether trying again may work without a person.
"""

from __future__ import annotations

NO_DAEMON = "no_daemon"
"""Reason of a CannotConnect: a socket took the connection and nobody greeted on it."""


class LinkError(Exception):
    """Base of the errors of links."""

    transient = True
    code = "link_error"


class CannotConnect(LinkError):
    """The way to the daemon is closed at some place; `transient` tells whether to try again.

    Where it is to be tried again, not before `pause_s` have passed.
    """

    code = "cannot_connect"

    def __init__(
        self, reason: str, message: str, *, transient: bool = True, pause_s: float = 0.0
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.transient = transient
        self.pause_s = pause_s


class LinkClosed(LinkError):
    code = "link_closed"


class LinkMute(LinkError):
    code = "link_mute"


class NoAnswer(LinkError):
    code = "no_answer"


class LinkOverfull(LinkError):
    code = "link_overfull"
