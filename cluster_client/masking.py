"""Quick unmasking of what comes in, in place of the pure Python of websockets.

WebSocket clients mask what they send (RFC 6455, 5.3) so that no proxy takes it for HTTP; on a link
inside SSH, or on a pipe, that protects nothing. The archive that a bootstrap puts on a cluster
holds only the pure part of websockets, whose `apply_mask` turns a whole frame into big integers:
170 to 240 MB/s by the version of Python (3.9 to 3.13, frames of 1 MiB), the most costly step of an
upload. So one name of the library is replaced:

- A key of four zero bytes, which masks nothing, leaves the data as it is. Our servers send it.
- Any other key: each fourth byte is XORed with the same byte of the key, by bytes.translate, four
  times: 640 to 700 MB/s. Integers of 4 to 64 KiB at a time were as quick under Python 3.13, and
  slower under older ones.

The C extension of websockets, where there is one (an installation by pip), is quicker and stays.
"""

from __future__ import annotations

import functools
from typing import Union

from websockets import frames, utils

HOOK = "apply_mask"
SMALL_BYTES = 512
"""Below this the library's way is the quicker one."""

Data = Union[bytes, bytearray, memoryview]


def install() -> None:
    """Make websockets unmask by `apply_mask`, if it would do so in pure Python."""
    if getattr(frames, HOOK) is utils.apply_mask:
        setattr(frames, HOOK, apply_mask)


def apply_mask(data: Data, key: Data) -> Data:
    """`data` XORed with the repeated 4 bytes of `key`; `data` itself under the zero key."""
    if key == b"\0\0\0\0":
        return data
    if len(data) < SMALL_BYTES:
        return utils.apply_mask(bytes(data), bytes(key))
    masked = bytearray(data)
    for at in range(4):
        masked[at::4] = masked[at::4].translate(_table(key[at]))
    return masked


@functools.lru_cache(maxsize=256)
def _table(byte: int) -> bytes:
    return bytes(value ^ byte for value in range(256))
