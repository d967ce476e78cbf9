"""Unmasking gives what the library's own gives, and the library calls it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets import frames, utils
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from cluster_client import masking

SIZES = st.integers(0, 2000) | st.sampled_from([masking.SMALL_BYTES, 4097, 70_001])


@given(SIZES, st.binary(min_size=4, max_size=4), st.randoms(use_true_random=False))
def test_it_is_what_the_library_makes_of_it(size: int, key: bytes, random: object) -> None:
    data = random.randbytes(size)  # type: ignore[attr-defined]
    before = bytearray(data)
    assert bytes(masking.apply_mask(before, key)) == utils.apply_mask(data, key)
    assert before == data


def test_the_key_that_masks_nothing_copies_nothing() -> None:
    data = bytearray(b"x" * 5000)
    assert masking.apply_mask(data, bytes(4)) is data


@pytest.mark.parametrize("key", [bytes(4), b"\x01\xff\x00\x7e"])
def test_the_server_of_the_library_unmasks_by_it(
    key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "apply_mask", utils.apply_mask)  # as without the C extension
    masking.install()
    assert frames.apply_mask is masking.apply_mask  # type: ignore[attr-defined]
    data = bytes(range(256)) * 300
    server = ServerProtocol(state=OPEN)
    head = struct.pack("!BBQ", 0x82, 0xFF, len(data))
    server.receive_data(head + key + utils.apply_mask(data, key))
    (frame,) = server.events_received()
    assert bytes(frame.data) == data


def test_the_c_extension_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_the_extension(data: bytes, key: bytes) -> bytes:
        return utils.apply_mask(data, key)

    monkeypatch.setattr(frames, "apply_mask", by_the_extension)
    masking.install()
    assert frames.apply_mask is by_the_extension  # type: ignore[attr-defined]
