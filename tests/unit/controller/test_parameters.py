"""What a portal asks of a job: taken as it stands, or refused with a sentence."""

from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from controller import errors
from controller.models import HpcJob
from controller.services import parameters

SCRIPT = "#!/bin/bash\necho 'a & b'\n"


@pytest.fixture
def templates(tmp_path: Path, settings: Settings) -> Path:
    """A directory in which the project looks for templates."""
    settings.TEMPLATES = [
        {"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [tmp_path]}
    ]
    return tmp_path


def test_a_good_script_is_taken_byte_for_byte() -> None:
    text = SCRIPT + "\techo ' ä '  \n\n"
    assert parameters.script(text) == text


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "empty"),
        (" \n\n", "empty"),
        (None, "NoneType"),
        (b"#!/bin/sh\n", "bytes"),
        ("#!/bin/sh\n\0", "NUL"),
        ("#!/bin/sh\r\necho\r\n", "CRLF"),
        ("echo\n", "#!"),
        (" #!/bin/sh\n", "#!"),
        ("#!env python3\n", "absolute path"),
        ("#!\n/bin/sh\n", "absolute path"),
        ("#!/bin/sh\n" + "x" * (480 << 10), "491520"),
        ("#!/bin/sh\n\ud800", "surrogate"),
    ],
)
def test_a_bad_script_is_refused_with_the_reason(text: Any, word: str) -> None:
    with pytest.raises(errors.Invalid, match=word):
        parameters.script(text)


def test_the_limit_counts_bytes_and_is_a_setting(settings: Settings) -> None:
    settings.HPC_SCRIPT_LIMIT_BYTES = 12
    assert parameters.script("#!/bin/sh\nä")
    with pytest.raises(errors.Invalid, match="13 bytes"):
        parameters.script("#!/bin/sh\näx")


def test_resources_are_typed_and_left_out_where_none() -> None:
    asked = {"nodes": 2, "walltime_s": 60, "partition": "short", "qos": None}
    assert parameters.resources({"resources": asked}) == {
        "nodes": 2, "walltime_s": 60, "partition": "short",
    }  # fmt: skip
    assert parameters.resources({}) == {}
    assert parameters.resources(["any", "JSON"]) == {}


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"node": 1}, "node"),
        ({"nodes": 1, "gpus": 1, "cores": 2}, "cores, gpus"),
        ({"nodes": "1"}, "nodes"),
        ({"nodes": 0}, "nodes"),
        ({"nodes": 1.5}, "nodes"),
        ({"nodes": True}, "nodes"),
        ({"nodes": 2**31}, "nodes"),
        ({"partition": 5}, "partition"),
        ({"partition": "a\nb"}, "partition"),
        ({"account": "x" * 201}, "account"),
        ([1], "resources"),
        ("nodes=1", "resources"),
    ],
)
def test_bad_resources_are_refused_by_name(asked: Any, word: str) -> None:
    with pytest.raises(errors.Invalid, match=word):
        parameters.resources({"resources": asked})


@pytest.mark.parametrize(
    "variables", [{"A B": "1"}, {"1A": "1"}, {"": "1"}, {"A": 1}, {"A": "\0"}, ["A"], {1: "1"}]
)
def test_a_bad_environment_is_refused(variables: Any) -> None:
    with pytest.raises(errors.Invalid):
        parameters.environment(variables)


def test_a_good_environment_is_kept() -> None:
    assert parameters.environment({"_A1": "x y=z\n"}) == {"_A1": "x y=z\n"}


def _nested() -> Any:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        {"a": object()},
        {"a": float("nan")},
        {"a": "\0"},
        {"\0": 1},
        {"a": "\ud800"},
        {"a": "x" * (1 << 20)},
        _nested(),
        {1, 2},
    ],
    ids=["object", "nan", "nul", "nul key", "surrogate", "huge", "deep", "set"],
)
def test_parameters_that_no_database_keeps_are_refused(value: Any) -> None:
    with pytest.raises(errors.Invalid):
        parameters.check_json(value)


def test_any_json_is_taken() -> None:
    parameters.check_json({"a": [1, "ä\U0001f600", None, {"b": False}]})
    parameters.check_json(None)


def test_a_template_is_rendered_without_escaping(templates: Path) -> None:
    (templates / "job.sh").write_text("#!/bin/bash\n{{ command }} && echo {{ job.name }}\n")
    job = HpcJob(name="<n>")
    text = parameters.render(job, {"template": "job.sh", "command": "a < b"})
    assert text == "#!/bin/bash\na < b && echo <n>\n"


@pytest.mark.parametrize("given", [None, {}, [], {"template": 5}, {"template": "absent.sh"}])
def test_without_script_or_template_the_reason_is_told(templates: Path, given: Any) -> None:
    with pytest.raises(errors.Invalid, match="template"):
        parameters.render(HpcJob(), given)


def test_a_faulty_template_is_named(templates: Path) -> None:
    (templates / "bad.sh").write_text("{% nonsense %}")
    with pytest.raises(errors.Invalid, match=r"bad\.sh"):
        parameters.render(HpcJob(), {"template": "bad.sh"})
