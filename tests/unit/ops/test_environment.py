"""The environment file of a stack."""

import base64

import pytest

from ops import environment, errors


def test_what_is_written_is_read_back(tmp_path):
    values = {"PLAIN": "word", "QUOTED": "two words, 'one' $HOME `id` #", "EMPTY": ""}
    environment.write(tmp_path / "env", values)
    assert environment.read(tmp_path / "env") == values


def test_only_the_owner_can_read_it(tmp_path):
    path = tmp_path / "env"
    path.write_text("OLD=1\n")
    path.chmod(0o644)
    environment.write(path, {"NEW": "1"})
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_comments_and_empty_lines_are_passed_over(tmp_path):
    (tmp_path / "env").write_text("# mine\n\nA=1 # why\n")
    assert environment.read(tmp_path / "env") == {"A": "1"}


@pytest.mark.parametrize("line", ["export A=1", "A", "A='1"])
def test_a_line_that_is_none_of_ours_is_told_with_its_number(tmp_path, line):
    (tmp_path / "env").write_text(f"B=2\n{line}\n")
    with pytest.raises(errors.OpsError, match="line 2: NAME=value"):
        environment.read(tmp_path / "env")


def test_generated_secrets_are_fresh_and_fit_their_use():
    one, other = environment.generate("one"), environment.generate("other")
    assert len(base64.urlsafe_b64decode(one["HPC_SECRET_KEYS"])) == 32
    assert one["HPC_INSTANCE_ID"] == "one"
    assert not set(one.values()) & set(other.values())


def test_children_do_not_inherit_what_could_mislead_them():
    inherited = {"PATH": "/bin", "HPC_DATABASE_URL": "postgres://", "DJANGO_DEBUG": "1"}
    got = environment.of_children(inherited, {"HPC_INSTANCE_ID": "demo"})
    assert got == {"PATH": "/bin", "PYTHONUNBUFFERED": "1", "HPC_INSTANCE_ID": "demo"}
