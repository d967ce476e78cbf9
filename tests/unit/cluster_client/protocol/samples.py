"""Strategies for every message, derived from its fields, so that a new one is covered at once."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, Union

from hypothesis import strategies as st

from cluster_client.protocol import codec, messages

INT64 = st.integers(min_value=-(1 << 63), max_value=(1 << 63) - 1)
FLOAT = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)
TEXT = st.text(max_size=20)
JSON_VALUE = st.recursive(
    st.none() | st.booleans() | INT64 | FLOAT | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
PLAIN = {
    bool: st.booleans(),
    int: INT64,
    float: FLOAT,
    str: TEXT,
    messages.Json: st.dictionaries(TEXT, JSON_VALUE, max_size=3),
}


def of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type."""
    if kind in PLAIN:
        return PLAIN[kind]
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return st.builds(kind, **{name: of(hint) for name, hint in hints.items()})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return st.lists(of(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(TEXT, of(arguments[1]), max_size=3)
    assert origin is Union, kind
    return st.none() | of(arguments[0])


MESSAGES = st.one_of(*(of(kind) for kind in codec.TYPES.values()))
ENVELOPES = st.builds(
    codec.Envelope,
    MESSAGES,
    id=st.integers(0, (1 << 63) - 1),
    reply_to=st.integers(0, (1 << 63) - 1),
    deadline_s=st.floats(0, 1e8),
    version=st.integers(0, 100),
)
