"""What a portal asks of a job, checked: script, resources, environment."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from django.template import Context, TemplateDoesNotExist, TemplateSyntaxError
from django.template.backends.django import Template
from django.template.loader import get_template

from .. import conf, errors, queries
from ..models import HpcJob

PARAMETERS_LIMIT_BYTES = 1 << 20
LARGEST_NUMBER = 2**31 - 1  # what the columns hold
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")
INTERPRETER = re.compile(r"#![ \t]*/")
NAME_LIMIT = 200


def check_json(parameters: Any) -> None:
    """Refuse parameters that a database can't keep as JSON."""
    try:
        text = json.dumps(parameters, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise errors.Invalid(f"The parameters are no JSON: {error}.") from error
    if "\\u0000" in text:
        raise errors.Invalid("The parameters hold a NUL character: take it out.")
    if re.search(r"\\ud[89a-f]", text) and not _is_unicode(parameters):
        raise errors.Invalid("The parameters hold half a character (a lone surrogate).")
    if len(text) > PARAMETERS_LIMIT_BYTES:
        raise errors.Invalid(
            f"The parameters are {len(text)} bytes long; at most {PARAMETERS_LIMIT_BYTES} are"
            " kept: move data into files."
        )


def resources(parameters: Any) -> dict[str, int | str]:
    """The typed resources that the parameters name, by column; unknown names are refused."""
    asked = parameters.get("resources") if isinstance(parameters, dict) else None
    if asked is None:
        return {}
    if not isinstance(asked, dict):
        raise errors.Invalid('`resources` must be an object such as {"nodes": 1}.')
    unknown = sorted(str(name) for name in asked if name not in queries.RESOURCES)
    if unknown:
        raise errors.Invalid(
            f"Unknown resource {', '.join(unknown)}: there are {', '.join(queries.RESOURCES)}."
        )
    return {name: _resource(name, value) for name, value in asked.items() if value is not None}


def script(text: Any) -> str:
    """The script's body as it will be submitted, or Invalid with the reason."""
    if not isinstance(text, str):
        raise errors.Invalid(f"The script must be text, not {type(text).__name__}.")
    if not text.strip():
        raise errors.Invalid("The script is empty.")
    if "\0" in text:
        raise errors.Invalid("The script holds a NUL character: it must be plain text.")
    if "\r\n" in text:
        raise errors.Invalid(
            "The script has Windows line ends (CRLF), which shells choke on: convert it with"
            " dos2unix."
        )
    if not INTERPRETER.match(text):
        raise errors.Invalid(
            "The script must begin with #! and the absolute path of its interpreter (#!/bin/bash)."
        )
    size_bytes = _size_bytes(text)
    limit_bytes = conf.get().script_limit_bytes
    if size_bytes > limit_bytes:
        raise errors.Invalid(
            f"The script is {size_bytes} bytes long; at most {limit_bytes} are accepted: put data"
            " into files."
        )
    return text


def name(text: Any) -> str:
    """The job's name for people."""
    if not isinstance(text, str):
        raise errors.Invalid(f"The job's name must be text, not {type(text).__name__}.")
    if len(text) > NAME_LIMIT:
        raise errors.Invalid(
            f"The job's name is {len(text)} characters long; at most {NAME_LIMIT} are kept."
        )
    if CONTROL_CHARACTERS.search(text) or not _is_unicode(text):
        raise errors.Invalid("The job's name holds a line end or another control character.")
    return text


def environment(variables: Any) -> dict[str, str]:
    """The variables that the job's script will see."""
    if not isinstance(variables, Mapping):
        raise errors.Invalid("The environment must be an object of names and texts.")
    for name, value in variables.items():
        if not isinstance(name, str) or not VARIABLE.fullmatch(name):
            raise errors.Invalid(f"{name!r} is no name of an environment variable.")
        if not isinstance(value, str) or "\0" in value:
            raise errors.Invalid(f"The environment variable {name} must be text without NUL.")
    return dict(variables)


def render(job: HpcJob, parameters: Any) -> str:
    """The body made from the Django template that the parameters name."""
    name = parameters.get("template") if isinstance(parameters, dict) else None
    if not isinstance(name, str) or not name:
        raise errors.Invalid(
            "The parameters name neither a `script` nor a `template`: give one of them, or"
            f" override render() of {type(job).__name__}."
        )
    context = {"job": job, "parameters": parameters} | parameters
    try:
        template = get_template(name)
        # A script is no HTML: escaping would turn its && into &amp;&amp;.
        if isinstance(template, Template):
            return str(template.template.render(Context(context, autoescape=False)))
        return str(template.render(context))
    except TemplateDoesNotExist as error:
        raise errors.Invalid(f"There is no template {error}.") from error
    except TemplateSyntaxError as error:
        raise errors.Invalid(f"The template {name} is faulty: {error}.") from error


def _resource(name: str, value: Any) -> int | str:
    if queries.RESOURCES[name] is int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise errors.Invalid(f"The resource {name} must be a whole number, not {value!r}.")
        if not 1 <= value <= LARGEST_NUMBER:
            raise errors.Invalid(f"The resource {name} is {value}; it must be 1 or more.")
        return value
    if not isinstance(value, str) or len(value) > 200 or CONTROL_CHARACTERS.search(value):
        raise errors.Invalid(f"The resource {name} must be a short text, not {value!r}.")
    return value


def _size_bytes(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise errors.Invalid("The script holds half a character (a lone surrogate).") from error


def _is_unicode(parameters: Any) -> bool:
    try:
        json.dumps(parameters, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
