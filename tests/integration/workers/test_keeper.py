"""Keepers that share links to real peers; their leases are kept in memory by one clock."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster_client.protocol import messages
from ops import processes
from tests.integration.workers import peer as peers
from workers.links import carriers, clock, connector, errors, keeper
from workers.links.link import HeldLink

TTL_S = 2.0
PACE = connector.Pace(
    renew_s=0.4,
    mute_s=1.2,
    tick_s=0.1,
    sweep_s=0.5,
    release_s=0.1,
    ping_interval_s=0.5,
    ping_deadline_s=5.0,
    request_deadline_s=5.0,
    connect_limit_s=5.0,
    retry_min_s=0.1,
    retry_max_s=0.4,
)


@dataclass
class Row:
    """A link as the database has it."""

    holder: str = ""
    epoch: int = 0
    expires_at: float = 0.0
    wanted: bool = True
    is_bootstrap_asked: bool = False
    state: str = "down"
    reason: str = ""
    not_before: float | None = 0.0


class Table:
    """What all keepers share; it can be made to fail."""

    def __init__(self, count: int, connect: Callable[[], peers.SocketChannel]) -> None:
        self.rows = {number: Row() for number in range(1, count + 1)}
        self.workers: dict[str, float] = {}
        self.connect = connect
        self.lock = threading.Lock()
        self.is_away = False
        self.refusal: errors.CannotConnect | None = None
        self.connected = 0

    def up(self) -> dict[str, int]:
        """How many links each holder has up."""
        with self.lock:
            holders = [row.holder for row in self.rows.values() if row.state == "up" and row.holder]
        return {holder: holders.count(holder) for holder in holders}


class Records:
    """The callbacks of one keeper."""

    def __init__(self, table: Table, name: str) -> None:
        self._table = table
        self._name = name
        self.swept: list[int] = []
        self.cancelled: list[int] = []
        self.never_done: set[int] = set()
        self.sweeps = threading.Event()
        self.sweeps.set()
        self.received: list[int] = []

    @contextmanager
    def _rows(self) -> Iterator[dict[int, Row]]:
        if self._table.is_away:
            raise ConnectionError("The database is away.")
        with self._table.lock:
            yield self._table.rows

    def tidy(self) -> None:
        return None

    def heartbeat(self, is_draining: bool) -> None:
        with self._rows():
            self._table.workers[self._name] = 0.0 if is_draining else clock.now()

    def forget(self) -> None:
        with self._rows():
            self._table.workers.pop(self._name, None)

    def share(self) -> int:
        with self._rows() as rows:
            live = [at for at in self._table.workers.values() if at > clock.now() - TTL_S]
            asked = sum(row.wanted or row.is_bootstrap_asked for row in rows.values())
            return -(-asked // max(1, len(live)))

    def candidates(self, limit: int) -> Sequence[int]:
        now = clock.now()
        with self._rows() as rows:
            return [
                number
                for number, row in rows.items()
                if (row.wanted or row.is_bootstrap_asked)
                and (not row.holder or row.expires_at <= now)
                and row.not_before is not None
                and row.not_before <= now
            ][:limit]

    def take(self, cluster_id: int) -> int | None:
        with self._rows() as rows:
            row = rows[cluster_id]
            if row.holder and row.expires_at > clock.now():
                return None
            row.holder, row.epoch = self._name, row.epoch + 1
            row.expires_at, row.state = clock.now() + TTL_S, "connecting"
            return row.epoch

    def renew(self, cluster_ids: Iterable[int]) -> set[int]:
        with self._rows() as rows:
            ours = {number for number in cluster_ids if rows[number].holder == self._name}
            for number in ours:
                rows[number].expires_at = clock.now() + TTL_S
            return ours

    def release(self, cluster_id: int, epoch: int) -> None:
        with self._rows() as rows:
            if rows[cluster_id].epoch == epoch:
                rows[cluster_id].holder = ""

    def requested(self, cluster_ids: Iterable[int]) -> keeper.Requests:
        with self._rows() as rows:
            asked = frozenset(n for n in cluster_ids if rows[n].is_bootstrap_asked)
            unwanted = frozenset(n for n in cluster_ids if not rows[n].wanted)
            return keeper.Requests(asked, unwanted)

    def clear_request(self, cluster_id: int, epoch: int) -> None:
        with self._rows() as rows:
            rows[cluster_id].is_bootstrap_asked = False

    def connect(
        self, cluster_id: int, epoch: int, is_forced: bool, call: connector.Db[Any]
    ) -> carriers.Channel:
        if self._table.refusal is not None:
            raise self._table.refusal
        self._table.connected += 1
        return self._table.connect()

    def hello(self, cluster_id: int, epoch: int) -> messages.Hello:
        return messages.Hello((1,), "test", cluster_id, epoch=epoch)

    def raise_epoch(self, cluster_id: int, epoch: int, generation: int) -> int | None:
        return None

    def came_up(self, cluster_id: int, epoch: int, welcome: messages.Welcome) -> None:
        with self._rows() as rows:
            if rows[cluster_id].epoch == epoch:
                rows[cluster_id].state = "up"

    def open_tags(self, cluster_id: int) -> Sequence[str]:
        return ()

    def reconcile(self, cluster_id: int, epoch: int, compared: messages.Compared) -> Sequence[str]:
        return ()

    def cursor(self, cluster_id: int, outbox_id: str) -> int:
        return 0

    def went_down(self, cluster_id: int, epoch: int, detail: str) -> None:
        with self._rows() as rows:
            if rows[cluster_id].epoch == epoch:
                rows[cluster_id].state = "down"

    def blocked(
        self, cluster_id: int, epoch: int, reason: str, detail: str, retry_in_s: float | None
    ) -> None:
        with self._rows() as rows:
            row = rows[cluster_id]
            row.state, row.reason = "blocked", reason
            row.not_before = None if retry_in_s is None else clock.now() + retry_in_s

    def receive(
        self, cluster_id: int, epoch: int, outbox_id: str, events: Sequence[messages.Event]
    ) -> int:
        with self._rows():
            self.received += [event.seq for event in events]
            return events[-1].seq

    def polled(self, cluster_id: int, epoch: int, polled: messages.Polled) -> None:
        return None

    def sweep(self, link: HeldLink) -> bool:
        self.swept.append(link.cluster_id)
        self.sweeps.wait(10)
        return link.cluster_id in self.never_done

    def cancel(self, link: HeldLink) -> None:
        self.cancelled.append(link.cluster_id)

    def upkeep(self) -> None:
        return None

    def changed(self) -> None:
        return None


class World:
    """Keepers over one table and one peer."""

    def __init__(self, table: Table, peer: peers.Peer) -> None:
        self.table = table
        self.peer = peer
        self.keepers: dict[str, keeper.Keeper] = {}
        self.records: dict[str, Records] = {}

    def start(
        self, name: str, pace: connector.Pace = PACE, kind: type[Records] = Records
    ) -> keeper.Keeper:
        self.records[name] = kind(self.table, name)
        made = self.keepers[name] = keeper.Keeper(self.records[name], pace)
        made.start()
        return made


@pytest.fixture
def make(short_directory: Path) -> Iterator[Callable[[int], World]]:
    worlds: list[World] = []

    def answer(message: Any) -> Any:
        return messages.Compared() if isinstance(message, messages.Compare) else messages.Done()

    with peers.serving(short_directory, answer) as (peer, connect):

        def made(count: int) -> World:
            worlds.append(World(Table(count, connect), peer))
            return worlds[-1]

        yield made
        for world in worlds:
            world.table.is_away = False
            for each in world.keepers.values():
                each.close()
    assert [t.name for t in threading.enumerate() if t.name.startswith("hpc-")] == []


def wait(is_met: Callable[[], bool], limit_s: float = 10.0) -> None:
    assert processes.wait_until(is_met, limit_s)


def test_one_keeper_holds_everything_and_sweeps_it(make: Callable[[int], World]) -> None:
    world = make(5)
    world.start("a")
    wait(lambda: world.table.up() == {"a": 5})
    wait(lambda: set(world.records["a"].swept) == {1, 2, 3, 4, 5})


def test_a_second_keeper_gets_its_share_and_gives_it_back(make: Callable[[int], World]) -> None:
    world = make(6)
    world.start("a")
    wait(lambda: world.table.up() == {"a": 6})
    second = world.start("b")
    wait(lambda: world.table.up() == {"a": 3, "b": 3})
    second.close()
    wait(lambda: world.table.up() == {"a": 6})
    assert "b" not in world.table.workers


def test_while_the_database_is_away_links_are_mute_and_stay(make: Callable[[int], World]) -> None:
    world = make(3)
    held = world.start("a")
    wait(lambda: len(held.up_ids()) == 3)
    link = held.link_of(1)
    assert link is not None
    connected = world.table.connected
    world.table.is_away = True
    wait(lambda: held.up_ids() == set(), 5)
    with pytest.raises(errors.LinkMute):
        link.request(messages.Cancel("t"), 5)
    assert not threading.Event().wait(PACE.mute_s)  # an outage longer than the lease
    world.table.is_away = False
    wait(lambda: len(held.up_ids()) == 3)
    assert isinstance(link.request(messages.Cancel("t"), 5), messages.Done)
    assert world.table.connected == connected, "no new login"


def test_a_lease_that_another_took_closes_the_link(make: Callable[[int], World]) -> None:
    world = make(1)
    held = world.start("a")
    wait(lambda: held.up_ids() == {1})
    with world.table.lock:
        row = world.table.rows[1]
        row.holder, row.epoch, row.expires_at = "z", row.epoch + 1, clock.now() + 60
    wait(lambda: held.link_of(1) is None)
    assert world.table.rows[1].holder == "z"


def test_a_lease_that_ran_out_is_taken_anew_over_the_same_link(
    make: Callable[[int], World],
) -> None:
    world = make(1)
    held = world.start("a")
    wait(lambda: held.up_ids() == {1})
    with world.table.lock:
        world.table.rows[1].holder = ""
    wait(lambda: world.table.rows[1].epoch == 2 and held.up_ids() == {1})
    assert world.table.connected == 1
    link = held.link_of(1)
    assert link is not None
    assert link.epoch == 2


def test_an_unwanted_link_is_let_go(make: Callable[[int], World]) -> None:
    world = make(2)
    held = world.start("a")
    wait(lambda: held.up_ids() == {1, 2})
    world.table.rows[1].wanted = False
    wait(lambda: held.up_ids() == {2} and world.table.rows[1].holder == "")


def test_a_bootstrap_of_an_unwanted_link_is_carried_out_and_the_link_let_go(
    make: Callable[[int], World],
) -> None:
    world = make(2)
    row = world.table.rows[1]
    row.wanted = False
    held = world.start("a")
    wait(lambda: held.up_ids() == {2})
    assert row.epoch == 0
    row.is_bootstrap_asked = True
    wait(lambda: row.epoch == 1 and not row.is_bootstrap_asked and not row.holder)
    assert not threading.Event().wait(5 * PACE.tick_s)  # some looks for work
    assert (row.epoch, world.table.connected) == (1, 2), "taken once"


class OutrunRecords(Records):
    """The link that a first thread takes fails, and is not quite gone when a second takes it."""

    def __init__(self, table: Table, name: str) -> None:
        super().__init__(table, name)
        self.is_freed = threading.Event()
        self.may_go = threading.Event()
        self.own: keeper.Keeper | None = None

    def take(self, cluster_id: int) -> int | None:
        own, self.own = self.own, None
        if own is not None:
            own.look_after(cluster_id)
            assert self.is_freed.wait(5)
        return super().take(cluster_id)

    def release(self, cluster_id: int, epoch: int) -> None:
        super().release(cluster_id, epoch)
        if not self.is_freed.is_set():
            self.is_freed.set()
            self.may_go.wait(5)


def test_a_lease_taken_beside_a_link_on_its_way_out_is_given_back(
    make: Callable[[int], World],
) -> None:
    world = make(1)
    row = world.table.rows[1]
    row.wanted = False
    world.table.refusal = errors.CannotConnect("no_client", "Install it.", transient=False)
    held = world.start("a", kind=OutrunRecords)
    records = world.records["a"]
    assert isinstance(records, OutrunRecords)
    records.own = held
    held.look_after(1)
    records.may_go.set()
    assert (row.epoch, row.holder) == (2, "")


def test_cancels_never_wait_behind_sweeps(make: Callable[[int], World]) -> None:
    world = make(4)
    world.start("a", dataclasses.replace(PACE, sweepers=1))
    records = world.records["a"]
    wait(lambda: set(records.swept) == {1, 2, 3, 4})
    records.sweeps.clear()
    begun = len(records.swept)
    try:
        wait(lambda: len(records.swept) > begun)  # and the only sweeper stays in it
        records.cancelled.clear()
        wait(lambda: set(records.cancelled) == {1, 2, 3, 4}, 5)
    finally:
        records.sweeps.set()


def test_a_cluster_with_much_to_do_leaves_the_others_their_turn(
    make: Callable[[int], World],
) -> None:
    world = make(3)
    held = world.start("a", dataclasses.replace(PACE, sweepers=1, sweep_s=1000))
    swept = world.records["a"].swept
    world.records["a"].never_done = {1}
    wait(lambda: len(held.up_ids()) == 3)
    wait(lambda: {2, 3} <= set(swept) and swept.count(1) > 20)
    assert (swept.count(2), swept.count(3)) == (1, 1)


def test_what_a_person_must_mend_is_not_tried_again_by_a_timer(
    make: Callable[[int], World],
) -> None:
    world = make(1)
    world.table.refusal = errors.CannotConnect("no_client", "Install it.", transient=False)
    world.start("a")
    wait(lambda: world.table.rows[1].state == "blocked" and world.table.rows[1].holder == "")
    epoch = world.table.rows[1].epoch
    assert not threading.Event().wait(5 * PACE.retry_max_s)  # many pauses
    assert world.table.rows[1].epoch == epoch
    assert world.table.rows[1].not_before is None


def test_what_may_pass_is_tried_again_after_a_pause(make: Callable[[int], World]) -> None:
    world = make(1)
    world.table.refusal = errors.CannotConnect("no_bridge", "Not now.")
    held = world.start("a")
    wait(lambda: world.table.rows[1].epoch >= 3)
    world.table.refusal = None
    wait(lambda: held.up_ids() == {1})


def test_a_broken_link_is_made_again(make: Callable[[int], World]) -> None:
    world = make(1)
    held = world.start("a")
    wait(lambda: held.up_ids() == {1})
    world.peer.connections.get(timeout=5).close_socket()
    wait(lambda: world.table.connected == 2 and held.up_ids() == {1})


def test_events_are_kept_through_an_outage_of_the_database(make: Callable[[int], World]) -> None:
    world = make(1)
    held = world.start("a")
    wait(lambda: held.up_ids() == {1})
    connection = world.peer.connections.get(timeout=5)
    world.table.is_away = True
    world.peer.notify(connection, messages.Event("o", 1, "t", 0, "running", 1.0))
    assert not threading.Event().wait(0.3)  # the event has come, and can't be stored
    assert world.records["a"].received == []
    world.table.is_away = False
    wait(lambda: world.records["a"].received == [1])


def test_two_hundred_links_come_up_and_go(make: Callable[[int], World]) -> None:
    world = make(200)
    held = world.start("a")
    wait(lambda: len(held.up_ids()) == 200, 60)
    link = held.link_of(200)
    assert link is not None
    assert isinstance(link.request(messages.Cancel("t"), 5), messages.Done)
    begun_at = clock.now()
    held.close()
    assert clock.now() - begun_at < 15
    assert world.table.up() == {}
