"""Flower's configuration: `celery -A workers flower --conf=ops/flowerconfig.py`.

The credentials come from FLOWER_BASIC_AUTH (user:password), never from a command line. With them
`/metrics` and `/healthcheck` still answer without, and hence Flower stays on the loopback: to
show it elsewhere, put a proxy with a login of its own before it.
"""

import os

if ":" not in os.environ.get("FLOWER_BASIC_AUTH", ""):
    raise SystemExit(
        "Flower does not start without credentials: set FLOWER_BASIC_AUTH=user:password."
    )

address = "127.0.0.1"
# Without this, one POST stops the consumer of a cluster's queue.
read_only = True
