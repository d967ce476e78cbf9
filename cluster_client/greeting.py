"""Judges a server's greeting: instance, protocol version, epoch, generation."""

from __future__ import annotations

import logging
import os
import socket
import threading
from dataclasses import dataclass
from typing import Optional, Union

from cluster_client.fence import Fence
from cluster_client.job_store import JobStore
from cluster_client.protocol import messages
from cluster_client.schedulers import Scheduler

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """What the front knows about this installation and the greeting tells the server."""

    client_version: str = ""
    build_hash: str = ""
    scheduler_overruled: bool = False
    last_death: str = ""


@dataclass(frozen=True)
class Address:
    """Whom this daemon serves, and as which generation."""

    instance_id: str
    cluster_id: int
    generation: int


class Greeter:
    """Thread-safe."""

    def __init__(
        self,
        address: Address,
        identity: Identity,
        store: JobStore,
        fence: Fence,
        scheduler: Scheduler,
    ) -> None:
        self._address = address
        self._identity = identity
        self._store = store
        self._fence = fence
        self._scheduler = scheduler
        self._lock = threading.Lock()

    def judge(self, hello: messages.Hello) -> Union[messages.Welcome, messages.Refused]:
        """Take the epoch of a good greeting, see JobStore.record_epoch.

        Raises NotStored if it can't be taken, Fenced if retired.
        """
        with self._lock:
            self._fence.check()
            refused = self._refusal(hello)
            if refused is not None:
                return refused
            self._store.record_epoch(hello.epoch)
            self._line_up(hello)
            return self._welcome(hello)

    def _line_up(self, hello: messages.Hello) -> None:
        """A cursor that can't be continued (one side was restored) begins a new outbox."""
        first, last = self._store.first_seq, self._store.last_seq
        if hello.outbox_id == self._store.outbox_id and not first - 1 <= hello.cursor <= last:
            logger.warning(
                "cursor does not fit the outbox, which is numbered anew",
                extra={"cursor": hello.cursor, "first_seq": first, "last_seq": last},
            )
            self._store.renew_outbox()

    def _refusal(self, hello: messages.Hello) -> Optional[messages.Refused]:
        ours = self._address
        if (hello.instance_id, hello.cluster_id) != (ours.instance_id, ours.cluster_id):
            return self.refused(
                "wrong_instance",
                f"This daemon serves {ours.instance_id}.{ours.cluster_id},"
                f" not {hello.instance_id}.{hello.cluster_id}.",
            )
        if not set(hello.versions) & set(messages.VERSIONS):
            return self.refused(
                "version_mismatch",
                f"This client speaks protocol versions {messages.VERSIONS}, the server"
                f" {hello.versions}: bootstrap it anew.",
            )
        if hello.epoch < self._store.epoch:
            return self.refused(
                "stale_epoch",
                f"Epoch {hello.epoch} is older than {self._store.epoch}, which was seen here.",
            )
        if hello.generation > ours.generation:
            return self.refused(
                "retired",
                f"This daemon is generation {ours.generation}; the server has issued"
                f" {hello.generation}.",
            )
        return None

    def refused(self, code: str, message: str, generation: int = 0) -> messages.Refused:
        """With the highest epoch and generation that were seen here."""
        highest = max(generation, self._address.generation)
        return messages.Refused(code, message, epoch=self._store.epoch, generation=highest)

    def _welcome(self, hello: messages.Hello) -> messages.Welcome:
        return messages.Welcome(
            version=max(set(hello.versions) & set(messages.VERSIONS)),
            client_version=self._identity.client_version,
            host=socket.gethostname(),
            pid=os.getpid(),
            build_hash=self._identity.build_hash,
            scheduler=self._scheduler.name,
            scheduler_version=self._scheduler.version,
            scheduler_overruled=self._identity.scheduler_overruled,
            capabilities=self._scheduler.capabilities(),
            epoch=self._store.epoch,
            generation=self._address.generation,
            outbox_id=self._store.outbox_id,
            first_seq=self._store.first_seq,
            last_seq=self._store.last_seq,
            last_death=self._identity.last_death,
        )
