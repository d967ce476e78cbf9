"""The Django app: clusters, jobs and their life; enqueues work, holds no connection."""
