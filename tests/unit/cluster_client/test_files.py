"""A data link on which nobody speaks any more."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from cluster_client import files
from cluster_client.protocol import messages, session
from cluster_client.stdio_socket import Incoming


class Silence:
    """A socket on which a greeting comes, and then nothing."""

    def __init__(self, greeting: str) -> None:
        self.limits_s: list[float | None] = []
        self.closed: list[tuple[int, str]] = []
        self._frames = [greeting]

    def receive(self, limit_s: float | None) -> Incoming:
        self.limits_s.append(limit_s)
        if not self._frames:
            raise TimeoutError("nothing came")
        return Incoming(self._frames.pop(0).encode(), is_binary=False)

    def send(self, message: object) -> None:
        assert message

    def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))


def test_a_link_on_which_nobody_asks_any_more_ends(tmp_path: Path) -> None:
    asker = session.Session(messages.DATA_LIMIT_BYTES)
    asker.request(messages.Hello((1,), "portal", 1, purpose=messages.FILES), 5.0)
    (greeting,) = asker.texts_to_send()
    socket = Silence(greeting)
    settings = SimpleNamespace(
        job_working_directory=str(tmp_path), instance_id="portal", cluster_id=1
    )
    files.FilesLink(socket, settings, files.Life()).run()  # type: ignore[arg-type]
    assert socket.limits_s == [files.GREETING_LIMIT_S, files.IDLE_LIMIT_S]
    assert socket.closed == [(files.PROTOCOL_ERROR, "nothing came")]
