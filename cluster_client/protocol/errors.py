"""Errors of the protocol.

ProtocolError
├── MalformedFrame        not JSON, not an envelope, a field of the wrong type
├── FrameTooLarge         over the limit of its kind of link
├── VersionMismatch       no version that both ends speak
├── OutOfOrder            a message that is not legal now (before the greeting, wrong version)
└── SequenceGap           an event whose number is not the next one

Each of them ends the link on which it happened, and no other.
"""

from __future__ import annotations


class ProtocolError(Exception):
    """The other end broke the protocol; its link must be closed."""

    code = "protocol_error"
    transient = True


class MalformedFrame(ProtocolError):
    code = "malformed_frame"


class FrameTooLarge(ProtocolError):
    code = "frame_too_large"


class VersionMismatch(ProtocolError):
    code = "version_mismatch"
    transient = False


class OutOfOrder(ProtocolError):
    code = "out_of_order"


class SequenceGap(ProtocolError):
    code = "sequence_gap"
