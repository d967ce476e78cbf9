"""The SSH connections over which files are asked for: one a cluster, kept for who asks next.

Rules:
- A login is dear: it counts in the cluster's budget, and a refused one may lock the account. So
  all questions of a process share one connection; who finds it full, or being made, waits.
- Transfers share it as well, eight channels on each connection, and have others made when it is
  full. One place is left to questions, which are short: a transfer may stand still for minutes.
- What a connection was made from is compared before each question, as it is stored: nothing is
  decrypted to find that nothing has changed.
- What a question leaves open on the connection is kept for the next one (`Lent.keep`): to start
  the client anew would cost the login node a fifth of a second of CPU each time.
- A login that is held back, or that nobody answers, gives no connection up that is open: its
  successor would have to log in too.
- A question is asked again, once, if what was kept for it proves dead. A refused login is never
  tried again here: the gate (services.logins) decides that, over all processes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from ..links import carriers, clock, errors, ssh_carrier, ssh_errors

logger = logging.getLogger(__name__)

Plan = TypeVar("Plan")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Place:
    """What a connection was made from; `facts` are whatever of the rows decides over it."""

    facts: tuple[object, ...]
    address: str = ""
    """The login node of the control connection, if there is one."""


@dataclass(frozen=True)
class Bounded:
    """A carrier whose channels are open by `ends_at` (clock.now()), or not at all."""

    carrier: ssh_carrier.SshCarrier
    ends_at: float
    wish: ssh_carrier.Wish

    def open(self, argv: Sequence[str]) -> carriers.Channel:
        return self.carrier.open(argv, self.ends_at, self.wish)


QUESTION_ALONE = ssh_carrier.Wish(most_connections=1)
QUESTION = ssh_carrier.Wish()
TRANSFER = ssh_carrier.Wish(leaves=1)


@dataclass(frozen=True)
class Lent(Generic[Plan]):
    """A cluster's connection for one question. `spare` is what an earlier one has kept."""

    carrier: carriers.Carrier
    plan: Plan
    spare: ssh_carrier.Spare | None = None
    keep: Callable[[ssh_carrier.Spare], None] = lambda spare: spare.close()


@dataclass(eq=False)
class _Kept(Generic[Plan]):
    place: Place
    plan: Plan
    carrier: ssh_carrier.SshCarrier
    users: int = 0
    transfers: int = 0
    idle_since: float = field(default_factory=clock.now)
    is_retired: bool = False

    def fits(self, place: Place) -> bool:
        """Whether it goes where a new one would go, by the same credentials."""
        is_there = place.address in ("", self.place.address, self.carrier.address)
        return is_there and replace(place, address="") == replace(self.place, address="")

    def wish(self, is_transfer: bool) -> ssh_carrier.Wish:
        """What a channel for a question or a transfer may take."""
        if is_transfer:
            return TRANSFER
        return QUESTION if self.transfers else QUESTION_ALONE

    def logins_so_far(self) -> int | None:
        """None if the next question logs in."""
        return self.carrier.logins if self.carrier.connections else None

    def has_died_since(self, logins: int | None) -> bool:
        """Whether a connection that was there then is there no more."""
        return logins is not None and self.logins_so_far() != logins


class DataCarriers(Generic[Plan]):
    """The connections of one process. Thread-safe.

    `read` gives a cluster's place as it is now; `make` its plan and a carrier that has not logged
    in yet.
    """

    def __init__(
        self,
        read: Callable[[int], Place],
        make: Callable[[int], tuple[Plan, ssh_carrier.SshCarrier]],
        idle_s: Callable[[], float],
    ) -> None:
        self._read = read
        self._make = make
        self._idle_s = idle_s
        self._changed = threading.Condition()
        self._kept: dict[int, _Kept[Plan]] = {}
        self._tender: threading.Thread | None = None

    def ask(
        self,
        cluster_id: int,
        question: Callable[[Lent[Plan]], Answer],
        ends_at: float,
        *,
        is_transfer: bool = False,
    ) -> Answer:
        """What `question` returns over the cluster's connection; it may be asked twice.

        It is not asked again after an error that is no LinkError. Raises LinkError, and what
        `read`, `make` and `question` raise.
        """
        try:
            return self._ask_once(cluster_id, question, ends_at, is_transfer)
        except _Died as died:
            logger.info(
                "data.asked_again", extra={"cluster_id": cluster_id, "reason": str(died.problem)}
            )
        try:
            return self._ask_once(cluster_id, question, ends_at, is_transfer, is_again=True)
        except _Died as died:
            raise died.problem from None

    def close(self) -> None:
        """Log out everywhere, also where a question is under way."""
        with self._changed:
            kept = list(self._kept.values())
            self._kept.clear()
            self._changed.notify_all()
        for one in kept:
            one.carrier.close()
        logger.info("data.logged_out", extra={"count": len(kept)})

    def count(self) -> int:
        """How many connections are open."""
        with self._changed:
            kept = list(self._kept.values())
        return sum(one.carrier.connections for one in kept)

    # One question ---------------------------------------------------------------------------------

    def _ask_once(
        self,
        cluster_id: int,
        question: Callable[[Lent[Plan]], Answer],
        ends_at: float,
        is_transfer: bool,
        *,
        is_again: bool = False,
    ) -> Answer:
        with self._lent(cluster_id, is_transfer) as kept:
            before, address = kept.logins_so_far(), kept.carrier.address
            spare = None if is_again else kept.carrier.take_spare()
            bounded = Bounded(kept.carrier, ends_at, kept.wish(is_transfer))
            lent = Lent(bounded, kept.plan, spare, kept.carrier.keep)
            try:
                return question(lent)
            except ssh_errors.LoginError as problem:
                if problem.transient and kept.carrier.connections:
                    raise  # one more could not be made: those that are there are as good as before
                self._retire(cluster_id, kept)
                if address and isinstance(problem, ssh_errors.HostUnreachable):
                    raise _Died(problem) from problem  # another host of that name may be there
                raise
            except errors.LinkError as problem:
                is_dead = spare is not None or kept.has_died_since(before)
                if is_dead and clock.now() < ends_at:
                    raise _Died(problem) from problem
                raise

    @contextmanager
    def _lent(self, cluster_id: int, is_transfer: bool) -> Iterator[_Kept[Plan]]:
        kept = self._take(cluster_id)
        with self._changed:
            kept.transfers += is_transfer
        try:
            yield kept
        finally:
            self._give_back(kept, is_transfer)

    def _take(self, cluster_id: int) -> _Kept[Plan]:
        place = self._read(cluster_id)
        if (found := self._take_kept(cluster_id, place)) is not None:
            return found
        made = _Kept(place, *self._make(cluster_id))  # without the lock: it asks the database
        with self._changed:
            if (found := self._take_kept(cluster_id, place)) is not None:
                return found  # another thread was quicker
            replaced = self._kept.get(cluster_id)
            self._kept[cluster_id] = made
            made.users += 1
            self._see_to_tender()
        if replaced is not None:
            self._retire(cluster_id, replaced)
        return made

    def _take_kept(self, cluster_id: int, place: Place) -> _Kept[Plan] | None:
        with self._changed:
            kept = self._kept.get(cluster_id)
            if kept is None or not kept.fits(place):
                return None
            kept.users += 1
            return kept

    def _give_back(self, kept: _Kept[Plan], is_transfer: bool) -> None:
        with self._changed:
            kept.users -= 1
            kept.transfers -= is_transfer
            kept.idle_since = clock.now()
            is_over = kept.is_retired and not kept.users
            self._changed.notify_all()
        if is_over:
            kept.carrier.close()

    def _retire(self, cluster_id: int, kept: _Kept[Plan]) -> None:
        """Lend it no more; it is closed when those who have it are through."""
        with self._changed:
            if self._kept.get(cluster_id) is kept:
                del self._kept[cluster_id]
            kept.is_retired = True
            is_over = not kept.users
        if is_over:
            kept.carrier.close()

    # Idle connections -----------------------------------------------------------------------------

    def _see_to_tender(self) -> None:
        # Called with the lock.
        if self._tender is None:
            self._tender = threading.Thread(target=self._tend, name="hpc-data-idle", daemon=True)
            self._tender.start()

    def _tend(self) -> None:
        """Close each connection when it has been idle long enough; ends when none is kept."""
        while True:
            with self._changed:
                idle, wait_s = self._take_idle()
                if not idle and not self._kept:
                    self._tender = None
                    return
                if not idle:
                    self._changed.wait(wait_s)
            for one in idle:
                one.carrier.close()

    def _take_idle(self) -> tuple[list[_Kept[Plan]], float | None]:
        """Those to be closed now, and how long to wait for the next; None: until one is idle."""
        # Called with the lock.
        oldest = clock.now() - self._idle_s()
        unused = {key: one for key, one in self._kept.items() if not one.users}
        expired = {key: one for key, one in unused.items() if one.idle_since <= oldest}
        for key in expired:
            del self._kept[key]
        left_s = [one.idle_since - oldest for key, one in unused.items() if key not in expired]
        return list(expired.values()), min(left_s, default=None)


class _Died(Exception):
    """What was kept for a question is not there any more."""

    def __init__(self, problem: errors.LinkError) -> None:
        super().__init__(str(problem))
        self.problem = problem
