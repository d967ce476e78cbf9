"""The page on the protocol is what the messages say."""

from __future__ import annotations

from ops import protocol_page


def test_the_page_in_docs_is_current() -> None:
    assert protocol_page.PAGE.read_text(encoding="utf-8") == protocol_page.page(), (
        "Run: python ops/protocol_page.py"
    )
