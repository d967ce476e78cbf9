"""paramiko, tuned and mended: the one module that reaches into its inner parts (with ssh_buffers).

Deviations from paramiko 5.1, each with its reason. The figures were measured on a loopback with two
cores, in MB/s of one download.

1. Ciphers: AES-GCM first, which paramiko lists last (217 -> 351); no CBC, no 3DES.
   MACs: no MD5, and none cut to 96 bits.
2. A deque of packets in place of `BufferedPipe`, which copies every byte twice (351 -> 408).
3. A buffered socket: paramiko reads each packet by two system calls (408 -> 476). It also holds
   back the server's first lines, so that they can be judged before paramiko sees them.
4. TCP_NODELAY, as ssh itself sets it. Without it small frames wait for an acknowledgement.
5. Windows of 2 MiB and packets of 32 KiB, but more window on a long way: a window is what can be
   under way in one round trip. Never more than needed (8 MiB on a LAN: 214, 32 MiB: 73).
6. What the transport's own thread wants to send during a key exchange waits until that is over.
   paramiko's thread would wait for itself, and after 30 s end the connection: a CLOSE that arrives
   during a rekey, each 512 MiB, did it in more than half of all trials. Replies to global requests
   it would send in the middle of the exchange, against RFC 4253, section 7.1.
   Source: https://github.com/paramiko/paramiko/issues/822
7. Host keys are judged in each key exchange, before the server's signature counts for anything;
   certificates are not negotiated, because their blob is not the key that was confirmed.
8. stderr is taken in by the transport's thread, its end kept: nobody has to read it, and it can't
   fill the window that it shares with stdout.
9. A disconnect is remembered with its words, and which host key algorithms the server offered.
10. `exec` waits for its answer with a limit; paramiko would wait for ever. So does the opening of a
    session, for which it has a limit of an hour.
11. Of several sessions that are refused at once each is told so: paramiko keeps one exception for
    all, and who comes second would take the connection for broken.
    Source: paramiko/transport.py of 5.1, open_channel and get_exception
12. Nothing is sent on a channel after its CLOSE. A thread that says EOF may be overtaken by the
    transport's thread that answers the server's CLOSE, mostly during a rekey; the server then ends
    the whole connection: "ieof packet referred to nonexistent channel".
    Source: https://www.rfc-editor.org/rfc/rfc4254#section-5.3
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import paramiko
from paramiko import common
from paramiko.message import Message

from . import clock
from .ssh_buffers import BufferedSocket, PacketPipe, TailPipe

STDERR_BYTES = 8 << 10
SESSION_LIMIT_S = 20.0
"""For whoever names no other: `get_ssh_connection`, and what is opened on its client."""
WINDOW_BYTES = 2 << 20
WINDOW_LIMIT_BYTES = 16 << 20
WINDOW_RATE = 100 << 20
"""Bytes per second that one channel shall reach whatever the round trip, up to the limit."""
PACKET_BYTES = 32 << 10
FIRST_CHANNEL_MESSAGE = 80
"""Messages below are those of transport, key exchange and login.
Source: https://www.rfc-editor.org/rfc/rfc4250#section-4.1.2"""
ON_A_CHANNEL = range(common.MSG_CHANNEL_WINDOW_ADJUST, common.MSG_CHANNEL_FAILURE + 1)
EXCEPTION_TAKEN = "Unable to open channel."
ANOTHERS_REFUSAL = (2, common.CONNECTION_FAILED_CODE[2])
LOG_CHANNEL = "workers.links.paramiko"
"""paramiko logs each failed login as an error with its stack. We raise an error that says more."""
logging.getLogger(LOG_CHANNEL).setLevel(logging.CRITICAL)


class HostKeyRefused(paramiko.SSHException):
    """The server has shown a host key that `accepts` does not take."""


class PromptRefused(paramiko.SSHException):
    """The server has asked for something that is not answered."""


class Transport(paramiko.Transport):
    """One SSH connection; see the module's head for what differs.

    `accepts(key type, blob)` judges each host key; `key_algorithms` are those negotiated.
    """

    _active_check_timeout = 1.0
    """How often an idle connection wakes, in seconds. paramiko's 0.1 s cost a worker with 50 links
    as much as all else it did; a close wakes it at once (BufferedSocket.close)."""
    _preferred_ciphers = (
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        "aes128-ctr",
        "aes192-ctr",
        "aes256-ctr",
    )
    _preferred_macs = (
        "hmac-sha2-256-etm@openssh.com",
        "hmac-sha2-512-etm@openssh.com",
        "hmac-sha2-256",
        "hmac-sha2-512",
        "hmac-sha1",
    )

    def __init__(
        self,
        sock: BufferedSocket,
        *,
        accepts: Callable[[str, bytes], bool],
        key_algorithms: Sequence[str],
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        super().__init__(
            sock,  # type: ignore[arg-type]
            default_window_size=window_bytes,
            default_max_packet_size=PACKET_BYTES,
        )
        self.set_log_channel(LOG_CHANNEL)
        self.channel_timeout = SESSION_LIMIT_S
        self._accepts = accepts
        self._preferred_keys = tuple(key_algorithms)
        self._deferred: list[Message] = []
        self._closed: set[int] = set()
        self._sending = threading.Lock()
        self.offered_key_algorithms: tuple[str, ...] = ()
        self.farewell = ""

    @property
    def cipher(self) -> str:
        """What is used for what comes."""
        name: str = self.remote_cipher  # type: ignore[attr-defined]
        return name

    # 7: host keys ---------------------------------------------------------------------------------

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        return self._preferred_keys

    def _verify_key(self, host_key: bytes, sig: bytes) -> None:
        key_type = Message(host_key).get_text()
        if not self._accepts(key_type, host_key):
            raise HostKeyRefused(key_type)
        super()._verify_key(host_key, sig)  # type: ignore[misc]

    # 6: nothing is sent during a key exchange -----------------------------------------------------

    def _send_message(self, data: Message) -> None:
        if self._must_wait(data):
            self._deferred.append(data)
        else:
            self._send_unless_closed(data)

    def _send_unless_closed(self, data: Message) -> None:  # 12
        kind, channel = _address(data)
        with self._sending:
            if kind in ON_A_CHANNEL and channel in self._closed:
                return
            if kind == common.MSG_CHANNEL_CLOSE:
                self._closed.add(channel)
            super()._send_message(data)  # type: ignore[misc]

    def _send_user_message(self, data: Message) -> None:
        if threading.current_thread() is self:
            self._send_message(data)
        else:
            super()._send_user_message(data)  # type: ignore[misc]

    def _must_wait(self, data: Message) -> bool:
        is_ours = threading.current_thread() is self
        is_exchanging = self.initial_kex_done and not self.clear_to_send.is_set()
        return is_ours and is_exchanging and data.asbytes()[0] >= FIRST_CHANNEL_MESSAGE

    def _parse_newkeys(self, m: Message) -> None:
        super()._parse_newkeys(m)  # type: ignore[misc]
        deferred, self._deferred = self._deferred, []
        for message in deferred:
            self._send_message(message)

    # 9: what the server said ----------------------------------------------------------------------

    def _parse_kex_init(self, m: Message) -> None:
        names = Message(m.asbytes())
        names.get_bytes(16)
        names.get_list()
        self.offered_key_algorithms = tuple(names.get_list())
        super()._parse_kex_init(m)  # type: ignore[misc]

    def _parse_disconnect(self, m: Message) -> None:
        m.get_int()
        self.farewell = m.get_text()[:500]

    # Ending ---------------------------------------------------------------------------------------

    def abort(self) -> None:
        """End it at once, from any thread; wakes whoever reads or sends."""
        self.packetizer.complete_handshake()  # else its timer goes on for 15 s
        self.close()

    # Sessions -------------------------------------------------------------------------------------

    def execute(self, command: str, limit_s: float) -> paramiko.Channel:
        """A session that runs `command`. Raises SSHException, also if it takes too long."""
        ends_at = clock.now() + limit_s
        channel = self._open_session(limit_s)
        try:
            # 2 and 8, before anything can come.
            channel.in_buffer = PacketPipe(2 * channel.in_window_size)  # type: ignore[assignment]
            tail = TailPipe(STDERR_BYTES, lambda size: self.count_as_read(channel, size))
            channel.in_stderr_buffer = tail  # type: ignore[assignment]
            self._request(channel, command, ends_at)
        except BaseException:
            channel.close()
            raise
        return channel

    def _open_session(self, limit_s: float) -> paramiko.Channel:
        try:
            channel = self.open_session(timeout=limit_s)
            self._closed.discard(channel.remote_chanid)  # the server gives out its numbers again
            return channel
        except paramiko.ChannelException:
            raise
        except paramiko.SSHException as problem:
            if str(problem) == EXCEPTION_TAKEN and self.is_active():  # 11
                raise paramiko.ChannelException(*ANOTHERS_REFUSAL) from None
            raise

    def _request(self, channel: paramiko.Channel, command: str, ends_at: float) -> None:
        message = Message()
        message.add_byte(common.cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        message.add_string("exec")
        message.add_boolean(True)
        message.add_string(command)
        channel._event_pending()  # type: ignore[attr-defined]
        self._send_user_message(message)
        if not channel.event.wait(max(0.0, ends_at - clock.now())):
            raise paramiko.SSHException("The server did not answer a request to run a command.")
        if not channel.event_ready:
            raise paramiko.SSHException("The server refused to run a command.")

    def count_as_read(self, channel: paramiko.Channel, size: int) -> None:
        """Give the sender of a channel room for as much again."""
        grown = channel._check_add_window(size)  # type: ignore[attr-defined]
        if grown > 0:
            message = Message()
            message.add_byte(common.cMSG_CHANNEL_WINDOW_ADJUST)
            message.add_int(channel.remote_chanid)
            message.add_int(grown)
            self._send_user_message(message)

    def signal(self, channel: paramiko.Channel, name: str) -> None:
        """Ask the server to send a signal, like "KILL", to what a session runs.

        Source: https://www.rfc-editor.org/rfc/rfc4254#section-6.9
        """
        message = Message()
        message.add_byte(common.cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        message.add_string("signal")
        message.add_boolean(False)
        message.add_string(name)
        self._send_user_message(message)


def _address(message: Message) -> tuple[int, int]:
    """The kind of a message, and the channel that it goes to if it goes to one."""
    with message.packet.getbuffer() as view:
        return view[0], int.from_bytes(view[1:5], "big")


def window_bytes(round_trip_s: float) -> int:
    """How large the window of a channel must be for a way that long."""
    return max(WINDOW_BYTES, min(WINDOW_LIMIT_BYTES, int(round_trip_s * WINDOW_RATE)))
