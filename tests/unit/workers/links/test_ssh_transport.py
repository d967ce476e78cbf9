"""How large a window is."""

from __future__ import annotations

from workers.links import ssh_transport


def test_window_grows_with_the_way_within_limits() -> None:
    assert ssh_transport.window_bytes(0.0) == 2 << 20
    assert ssh_transport.window_bytes(0.08) == 8 << 20
    assert ssh_transport.window_bytes(3.0) == 16 << 20
