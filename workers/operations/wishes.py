"""What people ask of a cluster: drain its backlog, look after its link or its daemon now."""

from __future__ import annotations

from controller import conf

from . import comparison, registry, submission


def drain(cluster_id: int) -> None:
    """Submit what waits and ask about what is lost sight of, if the link is held here."""
    link = registry.link_of(cluster_id)
    if link is not None:
        comparison.ask_again(link)
        submission.drain(link, conf.get().sweep_interval_s)


def look() -> None:
    """Look at once for links to take or to let go."""
    keeper = registry.keeper()
    if keeper is not None:
        keeper.wake()


def bootstrap(cluster_id: int) -> None:
    """See to the daemon now.

    Its holder finds the request in the row. A link that nobody holds is taken, also where none is
    wanted: then it is let go as soon as the daemon has answered.
    """
    keeper = registry.keeper()
    if keeper is not None:
        keeper.look_after(cluster_id)
