"""The job's wrapper: renders the self-contained bash script that claims, runs and records."""

from __future__ import annotations

import pkgutil
import re
import shlex

from cluster_client import layout

REFUSED_STATUS = 122
DUPLICATE_STATUS = 121


def render(
    *,
    tag: str,
    directory: str,
    hints_directory: str,
    script_sha256: str,
    identity: str,
    header: str = "",
) -> bytes:
    """The wrapper of the job in `directory`.

    `identity` is the bash of the adapter, `header` its directive lines.
    """
    template = pkgutil.get_data("cluster_client", "wrapper.sh")
    if template is None:
        raise FileNotFoundError("wrapper.sh is missing from this installation of the client")
    values = {
        "HEADER": header.rstrip("\n"),
        "TAG": tag,
        "CONTROL": shlex.quote(layout.control_of(directory)),
        "HINTS": shlex.quote(hints_directory),
        "SHA256": script_sha256,
        "IDENTITY": identity,
    }
    text = re.sub(r"@([A-Z0-9]+)@", lambda match: values[match[1]], template.decode())
    return text.encode("utf-8", "surrogateescape")
