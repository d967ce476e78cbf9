"""The daemon's memory: jobs and outbox in append-only files, one directory per generation.

Rules:
- What `update` and its kin returned from is on the disk (fsync); what raised NotStored is not.
- Threads that write at the same time share one write and one fsync.
- Only the daemon of generation n writes in gen-<n>. A successor carries all forward into a
  snapshot of its own first, so the newest whole snapshot with the journal beside it is the truth;
  ids that an older daemon learned after its successor had read are taken over at the next start.
- After a failed write the file's tail is unknown: the next write begins with a new snapshot.
- An epoch that finds the disk full holds in memory and goes to the disk with the next write,
  whatever that is (see `record_epoch`).
- No lock of the file system is used: they are not to be trusted on NFS and Lustre.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Callable, Optional

from cluster_client import errors, journal
from cluster_client.filesystem import AppendFile, Filesystem
from cluster_client.job_records import Change, Contents, JobRecord, NewEvent
from cluster_client.journal import Entry
from cluster_client.protocol import messages

logger = logging.getLogger(__name__)

COMPACT_ABOVE_BYTES = 4 << 20
READ_GENERATIONS = 3
Step = Callable[[Optional[JobRecord]], Optional[Change]]
"""From the newest record of a tag (None: unknown) to what becomes of it (None: nothing)."""


class _Write:
    """One thread's part of the next write."""

    def __init__(self, plan: Callable[[_Plan], None]) -> None:
        self.plan = plan
        self.error: Optional[BaseException] = None
        self.is_done = False


class _Plan:
    """The entries of one write, decided one after the other as if each were written alone."""

    def __init__(self, contents: Contents, now: float) -> None:
        self._contents = contents
        self._overlay: dict[str, JobRecord] = {}
        self._seq = contents.last_seq + 1
        self.now = now
        self.entries: list[Entry] = []

    def step(self, tag: str, step: Step) -> None:
        change = step(self._overlay.get(tag) or self._contents.get(tag))
        if change is None:
            return
        entry = self._contents.job_entry(change, self.now, self._seq)
        self._seq += len(change.events)
        self._overlay[tag] = change.record
        self.entries.append(entry)

    def all_or_nothing(self, plan: Callable[[_Plan], None]) -> None:
        """Carry out `plan`; if it raises, nothing of it stays."""
        before = len(self.entries), self._seq, dict(self._overlay)
        try:
            plan(self)
        except BaseException:
            del self.entries[before[0] :]
            self._seq, self._overlay = before[1], before[2]
            raise


class JobStore:
    """Thread-safe. `load()` first; `guard` is asked before each write that makes events."""

    def __init__(
        self,
        fs: Filesystem,
        state_directory: str,
        generation: int,
        guard: Callable[[], None] = lambda: None,
    ) -> None:
        self._fs = fs
        self._root = state_directory
        self._generation = generation
        self._guard = guard
        self._contents = Contents()
        self._lock = threading.Condition()
        self._waiting: list[_Write] = []
        self._is_writing = False
        self._is_closed = False
        self._unstored_epoch = 0
        self._journal: Optional[AppendFile] = None
        self._number = 0
        self._journal_bytes = 0
        self._snapshot_bytes = 0

    # Reading --------------------------------------------------------------------------------

    @property
    def outbox_id(self) -> str:
        return self._contents.outbox_id

    @property
    def first_seq(self) -> int:
        return self._contents.first_seq

    @property
    def last_seq(self) -> int:
        return self._contents.last_seq

    @property
    def epoch(self) -> int:
        """The highest that was seen, whether or not it could be stored yet."""
        return max(self._contents.epoch, self._unstored_epoch)

    @property
    def jobs(self) -> dict[str, JobRecord]:
        """A copy: the jobs whose end the server has not acknowledged yet."""
        with self._lock:
            return dict(self._contents.jobs)

    @property
    def tombstones(self) -> dict[str, JobRecord]:
        with self._lock:
            return dict(self._contents.tombstones)

    def get(self, tag: str) -> Optional[JobRecord]:
        with self._lock:
            return self._contents.get(tag)

    def events_after(self, seq: int, limit: int = 100) -> list[messages.Event]:
        with self._lock:
            start = max(0, seq - self._contents.acknowledged_seq)
            return self._contents.events[start : start + limit]

    def wait_for_events(self, after_seq: int, timeout_s: float) -> bool:
        with self._lock:
            return self._lock.wait_for(lambda: self.last_seq > after_seq, timeout_s)

    def wake(self) -> None:
        """Let every thread in wait_for_events look again."""
        with self._lock:
            self._lock.notify_all()

    # Writing --------------------------------------------------------------------------------

    def put(self, record: JobRecord) -> None:
        self.update(record.tag, lambda _: Change(record))

    def put_with_event(self, record: JobRecord, kind: str, data: messages.Json) -> None:
        self.update(record.tag, lambda _: Change(record, (NewEvent(kind, data),)))

    def update(self, tag: str, step: Step) -> None:
        """Change one job from its newest record, durably; what `step` raises is raised here."""
        self.update_many([(tag, step)])

    def update_many(self, steps: Sequence[tuple[str, Step]]) -> None:
        """Change several jobs with one write."""

        def plan(it: _Plan) -> None:
            for tag, step in steps:
                it.step(tag, step)

        self._write(plan)

    def acknowledge(self, seq: int) -> None:
        """Forget the events up to `seq`, and make tombstones of the jobs whose end is told."""
        if seq > self._contents.acknowledged_seq:
            self._write(lambda it: it.entries.append({"t": "ack", "seq": seq, "at": it.now}))

    def record_epoch(self, epoch: int) -> None:
        """Raise the epoch; with the disk full it holds in memory until the next write.

        A runaway job that fills the disk must stay in reach of whichever worker holds the link.
        That is safe, because nothing that needs the disk can be done under such an epoch: a
        submission stores its intent first, and that write stores the epoch too. What needs no
        disk (cancel, delete, compare) may be done twice. Should the daemon die before, an older
        link may greet it once more, until the newest does: the server's epochs only grow.
        Raises NotStored for any other cause than a full disk.
        """
        if epoch <= self._contents.epoch:
            return
        try:
            self._write(lambda it: it.entries.append({"t": "epoch", "epoch": epoch}))
        except errors.NotStored as error:
            if error.reason != "no_space":
                raise
            logger.warning("epoch kept in memory", extra={"epoch": epoch, "cause": str(error)})
            self._unstored_epoch = max(self._unstored_epoch, epoch)

    def renew_outbox(self) -> None:
        """Number the unacknowledged events anew, under a new outbox id."""
        entry: Entry = {"t": "outbox", "outbox_id": str(uuid.uuid4())}
        self._write(lambda it: it.entries.append(entry))

    def _write(self, plan: Callable[[_Plan], None]) -> None:
        """Join the next write; the first thread to find none under way does it for all."""
        write = _Write(plan)
        with self._lock:
            self._waiting.append(write)
            while self._is_writing and not write.is_done:
                self._lock.wait()
            if write.is_done:
                batch = []
            else:
                batch, self._waiting = self._waiting, []
                self._is_writing = True
        if batch:
            self._write_batch(batch)
        if write.error is not None:
            raise write.error

    def _write_batch(self, batch: list[_Write]) -> None:
        planned = _Plan(self._contents, time.time())
        try:
            for write in batch:
                self._plan_one(planned, write)
            self._append(planned.entries)
        except BaseException as error:
            for write in batch:
                write.error = write.error or error
            raise
        finally:
            with self._lock:
                for write in batch:
                    write.is_done = True
                self._is_writing = False
                self._lock.notify_all()

    @staticmethod
    def _plan_one(planned: _Plan, write: _Write) -> None:
        try:
            planned.all_or_nothing(write.plan)
        except Exception as error:  # noqa: BLE001 (it is raised in the thread that asked)
            write.error = error

    def _append(self, entries: list[Entry]) -> None:
        """Put `entries` on the disk, then into the contents; only one thread at a time."""
        if not entries:
            return
        if self._is_closed:
            raise errors.ClientError("The store is closed: the daemon is ending.")
        if any("events" in entry for entry in entries):
            self._guard()
        file = self._journal
        limit_bytes = max(COMPACT_ABOVE_BYTES, 2 * self._snapshot_bytes)
        if file is None or self._journal_bytes > limit_bytes:
            file = self._compact()
        if self._unstored_epoch > self._contents.epoch:
            entries = [{"t": "epoch", "epoch": self._unstored_epoch}, *entries]
        numbered = [{"n": self._number + i, **entry} for i, entry in enumerate(entries)]
        data = b"".join(map(journal.encode, numbered))
        try:
            file.append(data)
        except errors.NotStored:
            self._journal = None  # its tail is unknown now
            raise
        self._number += len(entries)
        self._journal_bytes += len(data)
        with self._lock:
            for entry in numbered:
                self._contents.apply(entry)

    # Files ----------------------------------------------------------------------------------

    def _directory(self, generation: int) -> str:
        return os.path.join(self._root, f"gen-{generation}")

    def load(self) -> None:
        """Read the newest whole generation up to ours, and carry it forward into our directory."""
        generations = [n for n in self._generations() if n <= self._generation]
        read = self._newest_whole(generations)
        if read:
            newest = max(read)
            self._contents = read[newest]
            for generation in sorted(read.keys() - {newest}, reverse=True):
                self._take_over(read[generation])
        elif any(map(self._was_begun, generations)):
            raise errors.StoreDamaged(
                f"No whole snapshot in {self._root} (generations {generations}); restore one of"
                " them, or move the directory away to begin anew."
            )
        else:
            self._contents.outbox_id = str(uuid.uuid4())
        self._compact()
        self._remove_old(generations, [n for n in read if n < self._generation])

    def _newest_whole(self, generations: Sequence[int]) -> dict[int, Contents]:
        """The newest ones that can be read, at most READ_GENERATIONS; `generations` newest first.

        A start that failed (full disk, kill) leaves a directory without a snapshot: any number of
        them may lie before the whole ones.
        """
        read: dict[int, Contents] = {}
        for generation in generations:
            if len(read) == READ_GENERATIONS:
                break
            contents = self._read(generation)
            if contents is not None:
                read[generation] = contents
        return read

    def _was_begun(self, generation: int) -> bool:
        """True if a snapshot or a journal is there, whatever it is worth."""
        names = self._fs.listdir(self._directory(generation))
        return "snapshot" in names or "journal" in names

    def _generations(self) -> list[int]:
        names = (re.fullmatch(r"gen-(\d+)", name) for name in self._fs.listdir(self._root))
        return sorted((int(match[1]) for match in names if match), reverse=True)

    def _read(self, generation: int) -> Optional[Contents]:
        """What that generation's files say; None if its first snapshot was never finished."""
        directory = self._directory(generation)
        snapshot = self._fs.read(os.path.join(directory, "snapshot"))
        entries = journal.decode_snapshot(snapshot) if snapshot is not None else None
        if entries is None:
            if snapshot is not None:
                logger.error("snapshot is damaged", extra={"directory": directory})
            return None
        contents = Contents()
        for entry in entries:
            contents.apply(entry)
        next_number = int(entries[0]["next"])
        later, torn = journal.decode(self._fs.read(os.path.join(directory, "journal")) or b"")
        for entry in later:
            if entry["n"] >= next_number:
                contents.apply(entry)
        if torn:
            logger.warning("journal has a torn tail", extra={"directory": directory, "bytes": torn})
        self._number = max(self._number, next_number, later[-1]["n"] + 1 if later else 0)
        return contents

    def _take_over(self, older: Contents) -> None:
        """Ids that the older daemon stored after its successor had read its files."""
        for tag, theirs in older.jobs.items():
            ours = self._contents.jobs.get(tag)
            if ours and theirs.attempt == ours.attempt and not ours.scheduler_job_id:
                self._contents.jobs[tag] = replace(ours, scheduler_job_id=theirs.scheduler_job_id)

    def _compact(self) -> AppendFile:
        """Write all contents as a snapshot, then begin a new journal behind it."""
        directory = self._directory(self._generation)
        self._fs.make_directory(directory)
        if self._journal is not None:
            file, self._journal = self._journal, None
            file.close()
        head, *rest = self._contents.entries(time.time())
        data = journal.encode_snapshot([{**head, "next": self._number}, *rest])
        self._fs.write_durably(os.path.join(directory, "snapshot"), data)
        self._journal = self._fs.create_append(os.path.join(directory, "journal"), b"")
        self._journal_bytes, self._snapshot_bytes = 0, len(data)
        return self._journal

    def _remove_old(self, generations: Sequence[int], whole: Sequence[int]) -> None:
        """Keep our directory and back to the second of the `whole` ones before it."""
        kept = sorted(whole, reverse=True)[:2]
        for generation in generations:
            if len(kept) == 2 and generation < kept[1]:
                self._fs.remove_directory(self._directory(generation))

    def close(self) -> None:
        """No more writes; what was answered is on the disk already."""
        with self._lock:
            while self._is_writing:
                self._lock.wait()
            self._is_closed = True
            file, self._journal = self._journal, None
        if file is not None:
            file.close()
