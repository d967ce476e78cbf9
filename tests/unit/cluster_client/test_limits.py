"""Soft limits are read from what Linux prints, and taken on as far as the hard ones allow."""

from __future__ import annotations

import resource
import subprocess
import sys

from cluster_client import limits

TEXT = """\
Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max stack size            8388608              unlimited            bytes     
Max core file size        0                    unlimited            bytes     
Max realtime priority     0                    0                    
Max open files            broken
Max processes
"""  # noqa: W291


def test_the_soft_limits_that_sbatch_propagates_are_read():
    assert limits.parse(TEXT) == {
        resource.RLIMIT_CPU: resource.RLIM_INFINITY,
        resource.RLIMIT_STACK: 8388608,
        resource.RLIMIT_CORE: 0,
    }
    assert limits.parse("") == {}


def test_a_limit_above_the_hard_one_becomes_that():
    script = (
        "import resource as r\n"
        "from cluster_client import limits\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (100, 200))\n"
        "limits.take_on({r.RLIMIT_NOFILE: r.RLIM_INFINITY, r.RLIMIT_CORE: 0})\n"
        "print(r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_CORE)[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "(200, 200) 0\n"
