"""What a request must look like before anything is done about it; PURE."""

from __future__ import annotations

import hashlib
import re

from cluster_client import errors
from cluster_client.protocol import messages

_TAG = re.compile(r"j[a-z2-7]{14}")
# MAX_ARG_STRLEN of Linux. Source: execve(2), "Limits on size of arguments and environment".
_VARIABLE_LIMIT_BYTES = 131072
_LIMIT_S = 3600.0
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def tag(value: str) -> str:
    """`value`, which names a directory and a scheduler job; raises InvalidRequest."""
    if not _TAG.fullmatch(value):
        raise errors.InvalidRequest(
            f"{value[:40]!r} is not a job's tag (j and 14 characters of a-z and 2-7)."
        )
    return value


def limit_s(asked: float) -> float:
    """How long to wait for a request that asks for this limit, whether it is valid or not."""
    return min(_LIMIT_S, max(0.0, asked))


def submission(message: messages.Submit) -> bytes:
    """The script's bytes, if all of `message` can be meant; raises InvalidRequest."""
    tag(message.tag)
    if message.attempt < 1 or not 0 < message.limit_s <= _LIMIT_S:
        raise errors.InvalidRequest(
            f"Job {message.tag}: attempt {message.attempt} with a limit of {message.limit_s:g} s"
            " can't be meant."
        )
    try:
        script = message.script.encode()
    except UnicodeEncodeError:
        raise errors.InvalidRequest("The script is not valid text.") from None
    _check_script(script)
    if hashlib.sha256(script).hexdigest() != message.script_sha256:
        raise errors.InvalidRequest("The script is not the one that its checksum names.")
    for name, value in message.environment.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value:
            raise errors.InvalidRequest(f"{name[:80]!r} can't be an environment variable.")
        if len(name) + len(value.encode("utf-8", "surrogateescape")) + 2 > _VARIABLE_LIMIT_BYTES:
            raise errors.InvalidRequest(
                f"The environment variable {name[:80]} is larger than {_VARIABLE_LIMIT_BYTES}"
                " bytes, which no process can be given."
            )
    return script


def _check_script(script: bytes) -> None:
    first_line = script.partition(b"\n")[0]
    if not script:
        problem = "The script is empty."
    elif len(script) > messages.SCRIPT_LIMIT_BYTES:
        problem = f"The script is larger than {messages.SCRIPT_LIMIT_BYTES} bytes."
    elif b"\0" in script:
        problem = "The script holds a NUL character, which no scheduler takes."
    elif b"\r\n" in script:
        problem = "The script has DOS line ends (CRLF); save it with Unix line ends."
    elif not re.match(rb"#![ \t]*/", first_line):
        problem = "The script's first line must be #! and the path of its interpreter."
    else:
        return
    raise errors.InvalidRequest(problem)
