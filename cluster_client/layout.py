"""Where things lie in a job's directory.

The job's working directory is the user's: script, wrapper, claim and records stand beside his
files in a hidden directory, so that `rm *` or a data file called `claim` does no harm.
"""

from __future__ import annotations

import os

CONTROL = ".hpc"


def control_of(directory: str) -> str:
    """The directory of our own files of the job whose directory this is."""
    return os.path.join(directory, CONTROL)
