"""How the standalone project writes its log: the event, then its data as name=value."""

from __future__ import annotations

import logging

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """One line an event, with what was given in `extra`; line ends in values are escaped."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        line = super().formatMessage(record)
        data = {name: value for name, value in vars(record).items() if name not in STANDARD}
        words = " ".join(f"{name}={_shown(value)}" for name, value in data.items())
        return f"{line} {words}" if words else line


def _shown(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and text and " " not in text else repr(text)
