"""What can go wrong on the way in by SSH; each is told apart, and its message says what to do.

LoginError (a CannotConnect)
├── BadCredentials         nothing was sent
│   ├── NoCredentials      neither a key nor a password
│   ├── BadKey             the key can't be read
│   ├── PassphraseMissing  the key is encrypted and there is no passphrase
│   └── WrongPassphrase    the passphrase does not open the key
├── Unreachable            transient: time may mend it
│   ├── HostUnknown        the name has no address
│   ├── HostUnreachable    no connection to any address
│   ├── HostSilent         connected, and the server says nothing or stops in the middle
│   ├── RefusedBeforeBanner  the server hangs up first: too many logins, or a ban; long pause
│   ├── BudgetSpent        this site's own limit of logins
│   └── NoMoreSessions     the server opens no further session for this account
├── NotSsh                 something else answers there
├── NoCommonAlgorithm      server and client have no cipher or key exchange in common
├── HostKeyUnconfirmed     no key of this host was confirmed by a person
├── HostKeyChanged         the host shows another key than the confirmed ones
├── LoginRefused           the server does not take these credentials
├── SecondFactor           the server asks for more than a password
└── PasswordExpired        the server asks for a new password

A message holds no secret: neither key nor password nor what was asked and answered.
"""

from __future__ import annotations

from . import errors

REFUSED_PAUSE_S = 600.0
"""Who hangs up before saying a word may be counting: each try can make a ban longer."""


class LoginError(errors.CannotConnect):
    """Base: `code` is the word by which a record and the admin know it."""

    code = "login_failed"
    transient = False

    def __init__(self, message: str, *, pause_s: float = 0.0) -> None:
        super().__init__(self.code, message, transient=type(self).transient, pause_s=pause_s)


class BadCredentials(LoginError):
    code = "bad_credentials"


class NoCredentials(BadCredentials):
    code = "no_credentials"


class BadKey(BadCredentials):
    code = "bad_key"


class PassphraseMissing(BadCredentials):
    code = "passphrase_missing"


class WrongPassphrase(BadCredentials):
    code = "wrong_passphrase"


class Unreachable(LoginError):
    code = "unreachable"
    transient = True


class HostUnknown(Unreachable):
    code = "host_unknown"


class HostUnreachable(Unreachable):
    code = "host_unreachable"


class HostSilent(Unreachable):
    code = "host_silent"


class RefusedBeforeBanner(Unreachable):
    code = "refused_before_banner"

    def __init__(self, message: str) -> None:
        super().__init__(message, pause_s=REFUSED_PAUSE_S)


class BudgetSpent(Unreachable):
    code = "login_budget"


class NoMoreSessions(Unreachable):
    code = "no_more_sessions"


class NotSsh(LoginError):
    code = "not_ssh"


class NoCommonAlgorithm(LoginError):
    code = "no_common_algorithm"


class HostKeyUnconfirmed(LoginError):
    code = "host_key_unconfirmed"


class HostKeyChanged(LoginError):
    code = "host_key_changed"


class LoginRefused(LoginError):
    code = "login_refused"


class SecondFactor(LoginError):
    code = "second_factor"


class PasswordExpired(LoginError):
    code = "password_expired"


REFUSALS = (LoginRefused, SecondFactor, PasswordExpired)
"""What the server says of the credentials: never tried again by a timer."""


def known_as(code: str) -> type[LoginError]:
    """The error that goes by `code`, or one that waits for a person as a refusal does."""
    kinds = (*LoginError.__subclasses__(), *Unreachable.__subclasses__())
    return next((kind for kind in kinds if kind.code == code), LoginRefused)
