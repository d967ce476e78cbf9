"""The proof of a worker: of one token, under one of the keys."""

import uuid
from typing import Any

import pytest
from cryptography.fernet import Fernet

from controller.relay import proof

TOKEN = uuid.uuid4()


def test_a_proof_is_of_one_token() -> None:
    assert proof.is_proof(TOKEN, proof.proof(TOKEN))
    assert not proof.is_proof(uuid.uuid4(), proof.proof(TOKEN))


@pytest.mark.parametrize("text", [None, "", "0" * 64, 5, ["x"], "é" * 64])
def test_anything_else_is_none(text: Any) -> None:
    assert not proof.is_proof(TOKEN, text)


def test_a_proof_under_any_of_the_keys_counts_while_they_change(settings: Any) -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    settings.HPC_SECRET_KEYS = old
    shown = proof.proof(TOKEN)
    settings.HPC_SECRET_KEYS = f"{new},{old}"
    assert proof.is_proof(TOKEN, shown)
    settings.HPC_SECRET_KEYS = new
    assert not proof.is_proof(TOKEN, shown)
