"""Frames in and out, without a socket."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster_client.protocol import codec, messages
from cluster_client.protocol.errors import FrameTooLarge, MalformedFrame, ProtocolError

from . import samples

ACK = '{"v":1,"type":"ack","id":0,"reply_to":0,"deadline_s":0,"body":{"outbox_id":"o","seq":3}}'


@given(samples.ENVELOPES)
@settings(max_examples=500)
def test_every_message_survives_the_round_trip(envelope: codec.Envelope) -> None:
    assert codec.decode(codec.encode(envelope)) == envelope


@given(samples.ENVELOPES)
def test_bytes_decode_like_text(envelope: codec.Envelope) -> None:
    text = codec.encode(envelope)
    assert codec.decode(text.encode()) == envelope


def test_the_frame_is_the_documented_json() -> None:
    envelope = codec.Envelope(messages.Ack("o", 3))
    assert json.loads(codec.encode(envelope)) == json.loads(ACK)


@pytest.mark.parametrize("cut", range(len(ACK)))
def test_a_frame_cut_anywhere_is_malformed(cut: int) -> None:
    with pytest.raises(MalformedFrame):
        codec.decode(ACK[:cut])


@given(st.binary(max_size=200) | st.text(max_size=200))
@settings(max_examples=1000)
def test_noise_is_malformed_and_raises_nothing_else(noise: bytes | str) -> None:
    with pytest.raises(MalformedFrame):
        codec.decode(noise)


@given(
    st.dictionaries(st.sampled_from(["v", "type", "id", "reply_to", "deadline_s", "body"]),
                    samples.JSON_VALUE),
    st.sampled_from(sorted(codec.TYPES)),
)  # fmt: skip
@settings(max_examples=1000)
def test_json_of_any_shape_decodes_or_is_malformed(raw: dict[str, object], kind: str) -> None:
    for frame in (raw, {**raw, "type": kind}, {**json.loads(ACK), **raw}):
        try:
            codec.decode(json.dumps(frame))
        except MalformedFrame:
            continue


@given(samples.ENVELOPES, st.data())
@settings(max_examples=300)
def test_a_field_of_another_type_is_refused_or_legal(
    envelope: codec.Envelope, data: st.DataObject
) -> None:
    raw = json.loads(codec.encode(envelope))
    fields = [field.name for field in dataclasses.fields(envelope.message)]
    if not fields:
        return
    name = data.draw(st.sampled_from(fields))
    raw["body"][name] = data.draw(samples.JSON_VALUE)
    try:
        again = codec.decode(json.dumps(raw))
    except MalformedFrame as error:
        assert name in str(error)
    else:
        assert codec.decode(codec.encode(again)) == again


ENTRY = messages.Entry("n", "bg==", "file", 5, 1.5, "t")


@given(st.sampled_from([field.name for field in dataclasses.fields(ENTRY)]), samples.JSON_VALUE)
@settings(max_examples=500)
def test_the_quick_reader_takes_and_refuses_what_the_exact_one_does(
    name: str, value: object
) -> None:
    frame = json.loads(codec.encode(codec.Envelope(messages.Listed((ENTRY, ENTRY), True))))
    frame["body"]["entries"][1][name] = value
    kind = type(getattr(ENTRY, name))
    is_legal = type(value) in ((int, float) if kind is float else (kind,))
    try:
        decoded = codec.decode(json.dumps(frame)).message
    except MalformedFrame as error:
        assert not is_legal
        assert f"entries.{name}" in str(error)
    else:
        assert is_legal
        assert decoded.entries == (ENTRY, dataclasses.replace(ENTRY, **{name: kind(value)}))
        assert type(getattr(decoded.entries[1], name)) is kind


@pytest.mark.parametrize(
    ("name", "value"),
    [("size_bytes", 1 << 63), ("size_bytes", True), ("mtime", 1e301), ("mtime", "1")],
)
def test_the_quick_reader_keeps_the_bounds(name: str, value: object) -> None:
    entry = {**dataclasses.asdict(ENTRY), name: value}
    body = json.dumps({"entries": [entry], "is_complete": True})
    with pytest.raises(MalformedFrame, match=name):
        codec.decode(f'{{"v":1,"type":"listed","body":{body}}}')


def test_what_is_no_part_of_a_message_is_not_encoded() -> None:
    event = messages.Event("o", 1, "t", 0, "running", 0.0, {"odd": SimpleNamespace(a=1)})
    with pytest.raises(TypeError, match="SimpleNamespace"):
        codec.encode(codec.Envelope(event))


def test_unknown_fields_are_ignored() -> None:
    raw = json.loads(ACK)
    raw["later"] = raw["body"]["later"] = {"deep": [1]}
    assert codec.decode(json.dumps(raw)).message == messages.Ack("o", 3)


def test_an_unknown_type_is_a_value() -> None:
    raw = {**json.loads(ACK), "type": "dance"}
    assert codec.decode(json.dumps(raw)).message == codec.Unknown("dance")


@pytest.mark.parametrize(
    "body",
    ["{}", '{"outbox_id":"o"}', '{"outbox_id":1,"seq":3}', '{"outbox_id":"o","seq":true}',
     '{"outbox_id":"o","seq":1.5}', '{"outbox_id":"o","seq":null}', "[]", "null", '"x"',
     '{"outbox_id":"o","seq":9223372036854775808}'],
)  # fmt: skip
def test_a_missing_or_ill_typed_field_is_malformed(body: str) -> None:
    with pytest.raises(MalformedFrame):
        codec.decode(f'{{"v":1,"type":"ack","body":{body}}}')


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "1" + "0" * 400])
def test_numbers_that_are_not_finite_are_malformed(number: str) -> None:
    body = f'{{"at":{number},"took_s":1,"open_jobs":1}}'
    with pytest.raises(MalformedFrame):
        codec.decode(f'{{"v":1,"type":"polled","body":{body}}}')


def test_deep_nesting_is_malformed_not_a_crash() -> None:
    with pytest.raises(MalformedFrame):
        codec.decode('{"body":' + "[" * 200_000)


def test_lone_surrogates_travel_as_escapes() -> None:
    envelope = codec.Envelope(messages.Ack("\udcff", 1))
    assert codec.encode(envelope).isascii()
    assert codec.decode(codec.encode(envelope)) == envelope


def test_the_limit_counts_bytes_on_both_ends() -> None:
    envelope = codec.Envelope(messages.Ack("é" * 100, 1))
    text = codec.encode(envelope)
    size = len(text.encode())
    assert codec.encode(envelope, size) == text
    assert codec.decode(text, size) == envelope
    for oversize in (lambda: codec.encode(envelope, size - 1), lambda: codec.decode(text, size - 1),
                     lambda: codec.decode(text.encode(), size - 1)):  # fmt: skip
        with pytest.raises(FrameTooLarge):
            oversize()


def test_the_largest_script_fits_a_control_frame_though_all_of_it_needs_escapes() -> None:
    submit = messages.Submit("j" + "a" * 14, 1, "\n" * messages.SCRIPT_LIMIT_BYTES, "0" * 64)
    assert codec.decode(codec.encode(codec.Envelope(submit))).message == submit


def test_a_script_of_control_characters_is_refused_by_the_sender() -> None:
    submit = messages.Submit("j" + "a" * 14, 1, "\x01" * messages.SCRIPT_LIMIT_BYTES, "0" * 64)
    with pytest.raises(FrameTooLarge, match="submit of"):
        codec.encode(codec.Envelope(submit))


def test_each_error_of_the_protocol_has_a_code_of_its_own() -> None:
    kinds = ProtocolError.__subclasses__()
    assert len({kind.code for kind in kinds}) == len(kinds) == 5
