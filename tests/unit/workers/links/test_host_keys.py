"""Confirmed host keys: which are accepted, and what is negotiated where."""

from __future__ import annotations

import base64

import pytest

from workers.links import host_keys
from workers.links.host_keys import HostKey, Pins

BLOB = base64.b64decode("AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl")
LINE = f"ssh-ed25519 {base64.b64encode(BLOB).decode()} github.com"
SHOWN = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"
"""As GitHub publishes it. Source: https://docs.github.com/en/authentication"""


def test_fingerprint_is_what_ssh_keygen_prints() -> None:
    assert host_keys.fingerprint(BLOB) == SHOWN
    assert host_keys.from_line(LINE) == HostKey("ssh-ed25519", SHOWN)


@pytest.mark.parametrize("line", ["", "ssh-ed25519", "ssh-dss AAAA", "ssh-ed25519 !!!"])
def test_what_is_no_key_is_refused(line: str) -> None:
    with pytest.raises(ValueError):
        host_keys.from_line(line)


def test_key_is_accepted_by_type_and_fingerprint() -> None:
    pins = Pins([HostKey("ssh-ed25519", SHOWN, "10.0.0.1")])
    assert pins.accept("ssh-ed25519", BLOB)
    assert not pins.accept("ssh-rsa", BLOB)
    assert not pins.accept("ssh-ed25519", BLOB + b"x")
    assert not Pins([])
    assert not Pins([]).accept("ssh-ed25519", BLOB)


def test_only_confirmed_types_are_negotiated_rsa_never_with_sha1() -> None:
    pins = Pins([HostKey("ssh-rsa", "SHA256:a"), HostKey("ssh-ed25519", "SHA256:b")])
    assert pins.algorithms("10.0.0.1") == ("ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256")


def test_types_confirmed_at_an_address_come_before_those_of_others() -> None:
    pins = Pins(
        [
            HostKey("ssh-ed25519", "SHA256:a", "10.0.0.1"),
            HostKey("ecdsa-sha2-nistp256", "SHA256:b", "10.0.0.2"),
        ]
    )
    assert pins.algorithms("10.0.0.2") == ("ecdsa-sha2-nistp256",)
    assert pins.algorithms("10.0.0.3") == ("ssh-ed25519", "ecdsa-sha2-nistp256")
