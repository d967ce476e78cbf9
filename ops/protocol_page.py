"""Writes docs/protocol.md from the messages themselves: `python ops/protocol_page.py`."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "protocol.md"

sys.path.insert(0, str(ROOT))

from cluster_client.protocol import codec, messages, session  # noqa: E402  # the path comes first


def page() -> str:
    """The whole page, as Markdown."""
    parts = [
        "# Protocol",
        "Made by `ops/protocol_page.py` from `cluster_client/protocol`; a test keeps it current.",
        "What a worker and a cluster client say to each other, in WebSocket text frames of at most "
        f"{messages.CONTROL_LIMIT_BYTES >> 20} MiB (data links: "
        f"{messages.DATA_LIMIT_BYTES >> 20} MiB). Versions spoken: "
        f"{', '.join(map(str, messages.VERSIONS))}.",
        "## Frames",
        _text(codec.__doc__),
        "## Sessions",
        _text(session.__doc__),
        "## Messages",
        *(_message(name, kind) for name, kind in codec.TYPES.items()),
        "## Parts of messages",
        *(_message(kind.__name__, kind) for kind in _parts()),
    ]
    return "\n\n".join(parts) + "\n"


def _parts() -> list[type]:
    return [
        kind
        for kind in vars(messages).values()
        if isinstance(kind, type)
        and dataclasses.is_dataclass(kind)
        and kind not in codec.TYPES.values()
    ]


def _text(docstring: str | None) -> str:
    text = inspect.cleandoc(docstring or "")
    return re.sub(r"(?m)^Rules:$", "Rules:\n", text)


def _message(name: str, kind: type) -> str:
    lines = [f"### `{name}`"]
    # A dataclass without a docstring gets its signature as one: that says nothing new.
    if kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}("):
        lines += ["", _text(kind.__doc__)]
    if answers := session.REPLIES.get(kind):
        names = ", ".join(f"`{_wire(answer)}`" for answer in answers)
        lines += ["", f"A request; answered with {names} or `error`."]
    fields = dataclasses.fields(kind)
    if fields:
        lines += ["", "| field | type | default |", "|---|---|---|"]
        lines += [f"| {f.name} | {f.type} | {_default(f)} |" for f in fields]
    return "\n".join(lines)


def _wire(kind: type) -> str:
    return next(name for name, known in codec.TYPES.items() if known is kind)


def _default(field: dataclasses.Field[object]) -> str:
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return "empty"
    return "required"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
