"""The fence: one file in the state directory that names the newest generation.

It is what keeps two daemons apart that run on different login nodes and share only the file
system: whoever finds a newer generation in it must not change anything any more. Of two daemons
with the same generation the one that wrote it last goes on.
"""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import dataclass

from cluster_client import errors
from cluster_client.filesystem import Filesystem


@dataclass(frozen=True)
class Holder:
    """Who wrote the fence; (generation, host, pid, at) together name one daemon."""

    generation: int = 0
    host: str = ""
    pid: int = 0
    at: float = 0.0


class Fence:
    def __init__(self, fs: Filesystem, state_directory: str, generation: int) -> None:
        self._fs = fs
        self._path = os.path.join(state_directory, "fence")
        self._mine = Holder(generation, socket.gethostname(), os.getpid(), time.time())

    def take(self) -> None:
        """Write our generation; raises Fenced if a newer one is there, NotStored if it can't."""
        holder = self.read()
        if holder.generation > self._mine.generation:
            raise self._fenced_by(holder)
        text = json.dumps(self._mine.__dict__) + "\n"
        self._fs.write_durably(self._path, text.encode())

    def check(self) -> None:
        """Raise Fenced if another daemon took over, NotStored if the file can't be read now."""
        holder = self.read()
        if holder != self._mine:
            raise self._fenced_by(holder)

    def read(self) -> Holder:
        """What the fence says now; Holder() if there is none."""
        try:
            data = self._fs.read(self._path)
            fields = json.loads(data) if data else {}
            return Holder(
                int(fields.get("generation", 0)),
                str(fields.get("host", "")),
                int(fields.get("pid", 0)),
                float(fields.get("at", 0.0)),
            )
        except OSError as error:
            raise errors.NotStored(self._path, error) from error
        except (ValueError, AttributeError, TypeError) as error:
            raise errors.StoreDamaged(f"{self._path} is not a fence file: {error}.") from error

    def _fenced_by(self, holder: Holder) -> errors.Fenced:
        if not holder.generation:
            return errors.Fenced(f"{self._path} is gone: this state directory is no longer ours.")
        return errors.Fenced(
            f"Generation {holder.generation} (process {holder.pid} on {holder.host}) took over"
            f" from generation {self._mine.generation}.",
            holder.generation,
        )
