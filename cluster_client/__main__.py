"""`python -m cluster_client`, and what a zipapp runs."""

from __future__ import annotations

import sys

from cluster_client import client

if __name__ == "__main__":
    sys.exit(client.main(sys.argv[1:]))
