"""What a worker tells of its settings to whoever asks, such as Flower: passwords left out.

Celery hides the password of `broker_url` under exactly that name: not of a project's
CELERY_BROKER_URL, nor of any other URL among Django's settings, which it tells as well.
Source: https://github.com/celery/celery/pull/10398
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from celery.worker import control

STARS = "********"
# To the last @ of the word: a list of URLs loses more than it must, a password is hidden whole.
PASSWORD = re.compile(r"(://[^\s:/@]*):\S*@")
_of_celery = control.Panel.data["conf"]


def hide_passwords() -> None:
    """Have this process answer the command `conf` without the passwords of URLs."""
    control.Panel.data["conf"] = configuration


def configuration(state: Any, with_defaults: bool = False, **_: Any) -> Any:
    """The settings as Celery tells them, without the passwords of URLs."""
    return without_passwords(_of_celery(state, with_defaults=with_defaults))


def without_passwords(value: Any) -> Any:
    """The value, with stars for each password of a URL in its texts."""
    if isinstance(value, str):
        return PASSWORD.sub(rf"\1:{STARS}@", value)
    if isinstance(value, Mapping):
        return {key: without_passwords(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [without_passwords(one) for one in value]
    return value
