"""One process with a few of the clients that submit jobs at once; started by submission.py.

    python -m ops.bench.submitting CLUSTER_ID THREADS

It says "ready", then reads lines: each a number of jobs, which its threads share and submit, each
thread one after the other. It answers each with one line of JSON: the ids, and when it began.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import django

HELD = "#!/bin/sh\n#SBATCH --hold\ntrue\n"
"""It stays in the queue: what running jobs cost belongs to nodes, which here share the cores."""


def serve(cluster_id: int, threads: int) -> None:
    """Submit as many jobs as each line asks for, until there are no more lines."""
    from controller.models import HpcJob
    from controller.services import jobs

    def client(numbers: Iterator[int]) -> list[int]:
        ids = []
        # The iterator of a range is safe to share: each number is taken once.
        for _ in numbers:
            job = HpcJob.objects.create(cluster_id=cluster_id)
            jobs.submit(job, {"script": HELD})
            ids.append(job.pk)
        return ids

    def connect(start: threading.Barrier) -> None:
        HpcJob.objects.exists()
        start.wait()

    with ThreadPoolExecutor(threads) as pool:
        start = threading.Barrier(threads)
        list(pool.map(connect, [start] * threads))
        say("ready")
        for line in sys.stdin:
            begun_at = time.time()
            numbers = iter(range(int(line)))
            done = list(pool.map(client, [numbers] * threads))
            say(json.dumps({"begun_at": begun_at, "ids": [pk for ids in done for pk in ids]}))


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    django.setup()
    serve(int(sys.argv[1]), int(sys.argv[2]))
