"""The errors of this package.

OpsError
├── MissingProgram    something has to be installed first
└── NotStarted        a program was started and did not get ready
"""


class OpsError(Exception):
    """Something on this machine does not let us go on; the message says what to do."""


class MissingProgram(OpsError):
    """A program is not installed."""


class NotStarted(OpsError):
    """A program did not get ready."""
