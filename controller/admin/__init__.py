"""The app's pages in Django's admin; each action only enqueues, and says so."""

from .clusters import HpcClusterAdmin
from .jobs import HpcJobAdmin
from .records import ClusterLinkAdmin

__all__ = ["ClusterLinkAdmin", "HpcClusterAdmin", "HpcJobAdmin"]
