"""The standalone project's log lines."""

import logging

from controller.project.logs import LineFormatter


def test_data_follows_the_event_on_one_line() -> None:
    record = logging.makeLogRecord(
        {"msg": "job event", "levelname": "INFO", "job": 5, "reason": "two words", "raw": "a\nb"}
    )
    line = LineFormatter("%(levelname)s %(message)s").format(record)
    assert line == "INFO job event job=5 reason='two words' raw='a\\nb'"
