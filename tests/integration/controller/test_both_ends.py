"""One fact, two programs that share no code: what the server accepts, the client accepts too."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from pytest_django import Settings

from cluster_client import configuration, definitions, errors, validation
from cluster_client.protocol import messages
from controller import conf
from controller import errors as controller_errors
from controller.models import HpcCluster
from controller.services import clusters, parameters
from workers.operations import bootstrap

SENT = ("HPC_POLL_INTERVAL_S", "HPC_SUBMIT_PARALLEL", "HPC_LOST_AFTER_S")
PARSERS = {definition.name: definition.parse for definition in definitions.DEFINITIONS}
BEYOND = {"least": 0.999, "most": 1.001}


def bound(name: str, which: str) -> Any:
    return conf.FIELDS[name].metadata[which]


@pytest.mark.parametrize("which", ["least", "most"])
def test_the_client_takes_every_setting_that_the_server_may_send(
    cluster: HpcCluster, settings: Settings, which: str
) -> None:
    for name in SENT:
        setattr(settings, name, bound(name, which))
    document = bootstrap.plan(cluster.pk).document
    for name, value in document["settings"].items():
        PARSERS[name](value)
    assert set(SENT) < document["settings"].keys()
    for name in SENT:
        assert document["settings"][name] == bound(name, which)


@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("HPC_POLL_INTERVAL_S", "least"),
        ("HPC_POLL_INTERVAL_IDLE_S", "most"),
        ("HPC_SUBMIT_PARALLEL", "least"),
        ("HPC_SUBMIT_PARALLEL", "most"),
        ("HPC_LOST_AFTER_S", "least"),
        ("HPC_LOST_AFTER_S", "most"),
    ],
)
def test_the_server_refuses_nothing_that_the_client_would_take(name: str, which: str) -> None:
    """The queue is idle for three times as long: its bound is the one that counts above."""
    value = 3 * bound("HPC_POLL_INTERVAL_S", which) if "IDLE" in name else bound(name, which)
    PARSERS[name](value)
    beyond = (
        value + {"least": -1, "most": 1}[which] if "PARALLEL" in name else value * BEYOND[which]
    )
    with pytest.raises(ValueError, match=r"."):
        PARSERS[name](beyond)


@pytest.mark.parametrize("which", ["least", "most"])
def test_the_client_takes_every_limit_of_a_submission(which: str) -> None:
    validation.submission(submit("#!/bin/sh\n", limit_s=bound("HPC_SUBMIT_LIMIT_S", which)))
    if which == "most":
        with pytest.raises(errors.InvalidRequest):
            validation.submission(
                submit("#!/bin/sh\n", limit_s=bound("HPC_SUBMIT_LIMIT_S", which) + 1)
            )


def submit(script: str, limit_s: float = 60) -> messages.Submit:
    digest = hashlib.sha256(script.encode()).hexdigest()
    return messages.Submit("jaaaaaaaaaaaaaa", 1, script, digest, limit_s=limit_s)


@pytest.mark.parametrize(
    "script",
    [
        "#!/bin/sh\n",
        "#! /bin/sh\n",
        "#!\t/usr/bin/env python3",
        "#!/bin/sh\nprintf '50 %\r'\n",
        "",
        " \n",
        "echo\n",
        "#!env python3\n",
        "#!\n/bin/sh\n",
        " #!/bin/sh\n",
        "#!/bin/sh\r\necho\r\n",
        "#!/bin/sh\n\0",
        "#!/bin/sh\n" + "x" * ((480 << 10) - 10),
        "#!/bin/sh\n" + "x" * ((480 << 10) - 9),
    ],
)
def test_both_ends_take_the_same_scripts(script: str) -> None:
    def takes(check: Any, argument: Any, refusal: type[Exception]) -> bool:
        try:
            check(argument)
        except refusal:
            return False
        return True

    here = takes(parameters.script, script, controller_errors.Invalid)
    assert here == takes(validation.submission, submit(script), errors.InvalidRequest)


def test_the_longest_script_is_the_same_at_both_ends() -> None:
    field = conf.FIELDS["HPC_SCRIPT_LIMIT_BYTES"]
    assert field.default == field.metadata["most"] == messages.SCRIPT_LIMIT_BYTES


def test_the_client_takes_every_umask_that_the_server_takes(cluster: HpcCluster) -> None:
    good = configuration.StartDocument("test", 1, 1, {})
    taken = 0
    for number in range(0o1000):
        umask = f"{number:04o}"
        try:
            clusters.validate(HpcCluster(host_name="localhost", client_path="/x", umask=umask))
        except ValidationError:
            continue
        taken += 1
        document = dataclasses.replace(good, umask=umask)
        assert configuration.resolve("/x", document, {}, {}).umask == number
    assert taken == 32
