"""What Celery runs: a few lines each, one call; importing this package registers all."""

from . import clusters, files, jobs

__all__ = ["clusters", "files", "jobs"]
