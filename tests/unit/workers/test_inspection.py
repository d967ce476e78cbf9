"""What a worker tells of its settings."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from celery import Celery
from celery.worker import control

from workers import inspection

SECRET = "k7Qx09vTzP3mWd5R"


def test_a_worker_tells_no_password_of_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control.Panel, "data", dict(control.Panel.data))
    inspection.hide_passwords()
    app = Celery("portal", set_as_current=False)
    settings = {
        "CELERY_BROKER_URL": f"redis://:{SECRET}@127.0.0.1:6379/0",
        "CELERY_RESULT_BACKEND": f"redis://user:{SECRET}@127.0.0.1:6379/0",
        "CACHES": {"default": {"LOCATION": [f"rediss://u:{SECRET}@a/1", f"redis://:{SECRET}@b"]}},
        "SEARCH_URL": f"https://me:{SECRET}/with@slash@search.example.org/x",
    }
    app.config_from_object(SimpleNamespace(**settings), namespace="CELERY")
    told = control.Panel.data["conf"](SimpleNamespace(app=app))
    assert settings.keys() <= told.keys()
    assert SECRET not in str(told)
    assert told["CELERY_BROKER_URL"] == "redis://:********@127.0.0.1:6379/0"


@pytest.mark.parametrize(
    "text",
    ["redis://127.0.0.1:6379/0", "redis+socket:///tmp/a", "https://example.org/a@b", "a: b@c"],
)
def test_what_holds_no_password_is_told_as_it_is(text: str) -> None:
    assert inspection.without_passwords({"x": [text, 7, None]}) == {"x": [text, 7, None]}
