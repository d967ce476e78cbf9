"""Where things lie in the jobs' root and in a job's directory.

The job's working directory is the user's: script, wrapper, claim and records stand beside his
files in a hidden directory, so that `rm *` or a data file called `claim` does no harm.
"""

from __future__ import annotations

import errno
import os

CONTROL = ".hpc"
TRASH = ".trash"


def control_of(directory: str) -> str:
    """The directory of our own files of the job whose directory this is."""
    return os.path.join(directory, CONTROL)


def is_jobs_root(path: str) -> bool:
    """True if `path` is there and holds something; a root that we made always holds TRASH.

    An unmounted file system leaves nothing, or an empty directory: what lies in it is not gone.
    """
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def missing_root(path: str) -> OSError:
    """What to say of a root that should be there and is not."""
    words = (
        "it is missing or empty; is its file system mounted?"
        f" If it is new, or gone for good: mkdir -p {os.path.join(path, TRASH)}"
    )
    return FileNotFoundError(errno.ENOENT, words)
