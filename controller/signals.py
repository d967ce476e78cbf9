"""Notices for outsiders; nothing of ours listens to them."""

from django.dispatch import Signal

job_status_changed = Signal()
"""After the commit. sender: the job's class; job, before, after (JobStatus), event (Event)."""

link_changed = Signal()
"""After the commit. sender: HpcCluster; cluster, state (LinkState)."""
