"""Messages to text frames and back: JSON in one envelope, checked field by field.

    {"v": 1, "type": "submit", "id": 7, "reply_to": 0, "deadline_s": 30.0, "body": {...}}

Rules:
- A frame is one JSON object in UTF-8, not larger than the limit of its link.
- Unknown fields are ignored, in the envelope and in bodies; a missing or ill-typed one is an error.
- An unknown type decodes to Unknown, so that the session can answer it instead of failing.
- NaN and infinities are no JSON and are refused both ways.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import operator
import re
import typing
from dataclasses import dataclass
from typing import Any, Callable, Union

from . import messages
from .errors import FrameTooLarge, MalformedFrame


@dataclass(frozen=True)
class Unknown:
    """A message of a type that this end does not know."""

    type: str


@dataclass(frozen=True)
class Envelope:
    """A message with its address: `id` of a request, `reply_to` of an answer, neither: a notice."""

    message: Any
    id: int = 0
    reply_to: int = 0
    deadline_s: float = 0.0
    version: int = messages.VERSIONS[0]


def _wire_name(cls: type) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()


_PARTS = {messages.Capabilities, messages.Resources, messages.JobState, messages.Entry}
"""Dataclasses that are fields of messages, and no messages themselves."""

TYPES: dict[str, type] = {
    _wire_name(cls): cls
    for cls in vars(messages).values()
    if dataclasses.is_dataclass(cls) and isinstance(cls, type) and cls not in _PARTS
}
"""Every message by its name on the wire."""


def encode(envelope: Envelope, limit_bytes: int = messages.CONTROL_LIMIT_BYTES) -> str:
    """The frame of `envelope`; FrameTooLarge if the other end would refuse it."""
    text = json.dumps(
        {
            "v": envelope.version,
            "type": _wire_name(type(envelope.message)),
            "id": envelope.id,
            "reply_to": envelope.reply_to,
            "deadline_s": envelope.deadline_s,
            "body": vars(envelope.message),
        },
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
        default=_fields,
    )
    try:
        size = _utf8_size(text)
    except UnicodeEncodeError:  # lone surrogates are no UTF-8; JSON's escapes carry them
        text = json.dumps(json.loads(text), separators=(",", ":"))
        size = len(text)
    if size > limit_bytes:
        kind = _wire_name(type(envelope.message))
        raise FrameTooLarge(f"{kind} of {size} bytes is over the limit of {limit_bytes}.")
    return text


def made(kind: type, fields: dict[str, Any]) -> Any:
    """An instance of a dataclass of the protocol that takes over `fields`: all, and checked.

    For those that come by the thousand: the __init__ of a frozen one sets each field by a call.
    """
    one: Any = object.__new__(kind)
    object.__setattr__(one, "__dict__", fields)
    return one


def decode(frame: Union[str, bytes], limit_bytes: int = messages.CONTROL_LIMIT_BYTES) -> Envelope:
    """The envelope in `frame`; MalformedFrame or FrameTooLarge if there is none."""
    size = len(frame) if isinstance(frame, bytes) else _utf8_size(frame, "surrogatepass")
    if size > limit_bytes:
        raise FrameTooLarge(f"A frame of {size} bytes is over the limit of {limit_bytes}.")
    try:
        raw = json.loads(frame, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise MalformedFrame(f"Not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise MalformedFrame("A frame must be a JSON object.")
    kind = _take(raw, "type", str)
    known = TYPES.get(kind)
    body = _take(raw, "body", dict)
    return Envelope(
        message=Unknown(kind) if known is None else _reader(known)(body, kind),
        id=_natural(raw, "id"),
        reply_to=_natural(raw, "reply_to"),
        deadline_s=_seconds(raw.get("deadline_s", 0.0)),
        version=_natural(raw, "v"),
    )


def _fields(part: Any) -> dict[str, Any]:
    """Of a dataclass in a field: as asdict tells them, without a copy of each."""
    if type(part) not in _PARTS:
        raise TypeError(f"{type(part).__name__} is nothing that a frame holds.")
    fields: dict[str, Any] = vars(part)
    return fields


def _utf8_size(text: str, errors: str = "strict") -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", errors))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _take(raw: dict[str, Any], name: str, kind: type) -> Any:
    value = raw.get(name)
    if not isinstance(value, kind):
        raise MalformedFrame(f"The envelope's {name} is missing or no {kind.__name__}.")
    return value


def _natural(raw: dict[str, Any], name: str) -> int:
    value = raw.get(name, 0)
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise MalformedFrame(f"The envelope's {name} is no natural number.")
    return value


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1e9:
        raise MalformedFrame("The envelope's deadline_s is no number of seconds.")
    return float(value)


# Fields -----------------------------------------------------------------------------------------
# Each type of a field becomes a reader(value, path) once; decoding then only calls readers.

Reader = Callable[[Any, str], Any]

INT_LEAST, INT_MOST = -(1 << 63), (1 << 63) - 1
FLOAT_MOST = 1e300
_BOUNDS: dict[Any, tuple[float, float]] = {
    int: (INT_LEAST, INT_MOST),
    float: (-FLOAT_MOST, FLOAT_MOST),
}


def _bad(path: str, wanted: str) -> MalformedFrame:
    return MalformedFrame(f"{path} is missing or not {wanted}.")


def _read_bool(value: Any, path: str) -> bool:
    if type(value) is not bool:
        raise _bad(path, "a boolean")
    return value


def _read_int(value: Any, path: str) -> int:
    if type(value) is not int or not INT_LEAST <= value <= INT_MOST:
        raise _bad(path, "a 64-bit integer")
    return value


def _read_float(value: Any, path: str) -> float:
    # 10**400 is a legal JSON integer that float() can't hold.
    if type(value) not in (int, float) or abs(value) > FLOAT_MOST or not math.isfinite(value):
        raise _bad(path, "a finite number")
    return float(value)


def _read_str(value: Any, path: str) -> str:
    if type(value) is not str:
        raise _bad(path, "a string")
    return value


def _read_json(value: Any, path: str) -> messages.Json:
    if type(value) is not dict:
        raise _bad(path, "an object")
    return value


def _tuple_reader(item: Reader) -> Reader:
    def read(value: Any, path: str) -> Any:
        if type(value) is not list:
            raise _bad(path, "a list")
        return tuple(item(one, path) for one in value)

    return read


def _map_reader(item: Reader) -> Reader:
    def read(value: Any, path: str) -> Any:
        return {key: item(one, path) for key, one in _read_json(value, path).items()}

    return read


def _optional_reader(item: Reader) -> Reader:
    def read(value: Any, path: str) -> Any:
        return None if value is None else item(value, path)

    return read


_PLAIN: dict[Any, Reader] = {
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
    str: _read_str,
    messages.Json: _read_json,
}


@functools.cache
def _reader(kind: Any) -> Reader:
    if kind in _PLAIN:
        return _PLAIN[kind]
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass_reader(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return _tuple_reader(_reader(arguments[0]))
    if origin is dict:
        return _map_reader(_reader(arguments[1]))
    if origin is Union and type(None) in arguments:
        return _optional_reader(_reader(next(a for a in arguments if a is not type(None))))
    raise TypeError(f"The codec knows no fields of type {kind}.")


def _dataclass_reader(kind: type) -> Reader:
    hints = typing.get_type_hints(kind)
    required: list[tuple[str, Reader]] = []
    optional: list[tuple[str, Reader]] = []
    for field in dataclasses.fields(kind):
        has_default = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        (optional if has_default else required).append((field.name, _reader(hints[field.name])))

    def read(value: Any, path: str) -> Any:
        raw = _read_json(value, path)
        values = {name: reader(raw.get(name), f"{path}.{name}") for name, reader in required}
        for name, reader in optional:
            if name in raw:
                values[name] = reader(raw[name], f"{path}.{name}")
        return kind(**values)

    is_flat = len(hints) > 1 and set(hints.values()) <= {bool, int, float, str}
    return _flat_reader(kind, hints, read) if is_flat else read


def _flat_reader(kind: type, hints: dict[str, Any], read: Reader) -> Reader:
    """`read` for a dataclass of plain fields: quicker where they are all there, and of their types.

    Whatever is not so (one more or less, an integer for a float, wrong) is for `read` to judge.
    """
    take = operator.itemgetter(*hints)
    count, types = len(hints), tuple(hints.values())
    bounds = [(at, *_BOUNDS[one]) for at, one in enumerate(types) if one in _BOUNDS]

    def read_quickly(value: Any, path: str) -> Any:
        if type(value) is not dict or len(value) != count:
            return read(value, path)
        try:
            fields = take(value)
        except KeyError:
            return read(value, path)
        if tuple(map(type, fields)) != types:
            return read(value, path)
        for at, least, most in bounds:
            if not least <= fields[at] <= most:
                return read(value, path)
        return made(kind, value)

    return read_quickly
