"""Secrets: sealed with the newest key, opened with any, and never shown."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback

import pytest
from cryptography.fernet import Fernet
from django.core.serializers.json import DjangoJSONEncoder
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from controller import crypto, errors
from controller.project.logs import LineFormatter

SECRET = " geheim ' \\ ü! "
OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT)
def test_what_is_sealed_is_revealed(secret: str) -> None:
    sealed = crypto.seal(secret)
    assert sealed.reveal() == secret
    assert bool(sealed) == bool(secret)


def test_two_seals_of_one_secret_differ() -> None:
    assert crypto.seal(SECRET) != crypto.seal(SECRET)
    assert crypto.seal(SECRET).token != SECRET


def test_a_newer_key_seals_and_an_older_one_still_opens(settings: Settings) -> None:
    settings.HPC_SECRET_KEYS = OLD
    before = crypto.seal(SECRET)
    settings.HPC_SECRET_KEYS = f"{NEW},{OLD}"
    after = crypto.seal(SECRET)
    assert (before.reveal(), after.reveal()) == (SECRET, SECRET)
    assert (crypto.opener(before.token), crypto.opener(after.token)) == (1, 0)
    again = crypto.reseal(before.token)
    assert (again.reveal(), crypto.opener(again.token)) == (SECRET, 0)


@pytest.mark.parametrize("token", ["x", "gAAAA", "ä", "=", "gAAAA" + "A" * 95, "\0"])
def test_what_no_key_opens_is_told_without_a_word_of_it(token: str) -> None:
    assert crypto.opener(token) is None
    for use in (crypto.reveal, crypto.reseal):
        with pytest.raises(errors.CannotDecrypt, match="HPC_SECRET_KEYS") as caught:
            use(token)
        assert caught.value.__suppress_context__


def test_a_secret_of_another_key_is_not_opened(settings: Settings) -> None:
    sealed = crypto.seal(SECRET)
    settings.HPC_SECRET_KEYS = NEW
    with pytest.raises(errors.CannotDecrypt):
        sealed.reveal()
    assert crypto.opener(sealed.token) is None


def test_a_sealed_secret_is_not_sealed_again() -> None:
    with pytest.raises(errors.Invalid, match="sealed"):
        crypto.seal(crypto.seal(SECRET).token)


def test_what_is_no_text_is_refused_without_showing_it() -> None:
    with pytest.raises(errors.Invalid) as caught:
        crypto.seal(f"{SECRET}\udc80")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_nothing_shows_a_secret() -> None:
    sealed = crypto.seal(SECRET)
    record = logging.makeLogRecord({"msg": "%s %r", "args": (sealed, sealed), "password": sealed})
    shown = [
        str(sealed),
        repr(sealed),
        f"{sealed} {sealed!r} {[sealed]} { ({'password': sealed}) }",
        "%s" % sealed,  # noqa: UP031
        LineFormatter("%(message)s").format(record),
    ]
    for text in shown:
        assert crypto.STARS in text
        assert SECRET.strip() not in text
        assert sealed.token not in text
    assert str(crypto.seal("")) == ""


def test_a_sealed_one_is_no_json() -> None:
    for encoder in (json.JSONEncoder, DjangoJSONEncoder):
        with pytest.raises(TypeError) as caught:
            json.dumps({"password": crypto.seal(SECRET)}, cls=encoder)
        assert SECRET.strip() not in str(caught.value)


def test_copies_are_sealed_as_well() -> None:
    sealed = crypto.seal(SECRET)
    pickled = pickle.dumps(sealed)
    assert SECRET.strip().encode() not in pickled
    for twin in (pickle.loads(pickled), copy.copy(sealed), copy.deepcopy(sealed)):
        assert twin == sealed
        assert hash(twin) == hash(sealed)
        assert twin.reveal() == SECRET
