"""The frames of a relay: any cut of the stream gives the same, and nothing oversized is stored."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import errors
from controller.relay import frames
from controller.relay.frames import Kind

stream = st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=300)), max_size=8)


def read(pieces: list[bytes]) -> list[tuple[Kind, bytes]]:
    """The frames that a reader makes of the pieces."""
    reader = frames.Reader()
    found = []
    for piece in pieces:
        left = piece
        while left:
            count = min(len(left), len(reader.space))
            reader.space[:count] = left[:count]
            left = left[count:]
            frame = reader.take(count)
            if frame is not None:
                found.append((frame.kind, bytes(frame.payload)))
    return found


@given(stream, st.lists(st.integers(0, 2500), max_size=20))
def test_any_cut_of_the_stream_gives_the_same_frames(
    sent: list[tuple[Kind, bytes]], cuts: list[int]
) -> None:
    whole = b"".join(frames.head(kind, len(payload)) + payload for kind, payload in sent)
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    assert read([whole[a:b] for a, b in itertools.pairwise(edges)]) == sent


@given(st.binary(max_size=200))
def test_rubbish_is_refused_or_waits_for_more(rubbish: bytes) -> None:
    try:
        found = read([rubbish])
    except errors.TransferBroken:
        return
    assert sum(len(payload) + frames.HEAD.size for _, payload in found) <= len(rubbish)


@pytest.mark.parametrize("kind", Kind)
def test_a_frame_over_its_limit_is_neither_made_nor_taken(kind: Kind) -> None:
    limit = frames.limit_bytes(kind)
    assert len(frames.head(kind, limit)) == frames.HEAD.size
    with pytest.raises(ValueError, match="too much"):
        frames.head(kind, limit + 1)
    with pytest.raises(errors.TransferBroken, match=f"{limit} are allowed"):
        read([frames.HEAD.pack(kind.value, limit + 1)])


def test_a_kind_out_of_turn_is_refused_before_its_payload_is_made_room_for() -> None:
    reader = frames.Reader(only={Kind.HELLO})
    reader.space[:] = frames.head(Kind.DATA, frames.DATA_LIMIT_BYTES)
    with pytest.raises(errors.TransferBroken, match="DATA came out of turn"):
        reader.take(frames.HEAD.size)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(errors.TransferBroken, match="no frame"):
        read([b"?\0\0\0\0"])


@pytest.mark.parametrize("text", [b"[]", b"1", b"{", b"\xff", b"[" * frames.JSON_LIMIT_BYTES])
def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(errors.TransferBroken, match="END"):
        frames.json_of(frames.Frame(Kind.END, text))


def test_documents_come_back_and_an_empty_payload_says_nothing() -> None:
    document = {"size_bytes": 5 << 30, "name": "Grüße"}
    frame = frames.Frame(Kind.START, memoryview(frames.payload_of(document)))
    assert frames.json_of(frame) == document
    assert frames.json_of(frames.Frame(Kind.START, b"")) == {}
