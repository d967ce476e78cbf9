"""One hidden question is answered with the password, and nothing else is answered at all."""

from __future__ import annotations

import pytest

from workers.links import ssh_errors, ssh_prompts

ASK = ("", "", [("Password: ", False)])


def interview() -> ssh_prompts.Interview:
    return ssh_prompts.Interview(" secret ")


@pytest.mark.parametrize(
    "prompt",
    ["Password: ", "(ada@login1) Password: ", "Passwort:", "ada@sms.code.org's password: ", ""],
)
def test_one_hidden_question_gets_the_password_as_it_is(prompt: str) -> None:
    assert interview().answer("", "", [(prompt, False)]) == [" secret "]


def test_advice_about_passwords_is_no_question() -> None:
    text = "To change your password, or for two-factor login, see https://help.example.org."
    assert interview().answer("", text, [("Password: ", False)]) == [" secret "]


def test_rounds_without_a_question_are_let_pass() -> None:
    one = interview()
    assert one.answer("Welcome", "to the cluster", []) == []
    assert one.answer(*ASK) == [" secret "]
    assert one.answer("", "Last login: never", []) == []


@pytest.mark.parametrize(
    ("title", "text", "prompts"),
    [
        ("", "", [("Password: ", False), ("Code: ", False)]),
        ("", "", [("Login name: ", True)]),
        ("", "", [("Verification code: ", False)]),
        ("", "", [("One-time password (OATH) for `ada': ", False)]),
        ("", "", [("Passcode or option (1-2): ", True)]),
        ("", "Duo two-factor login for ada", [("Passcode: ", False)]),
        ("", "Enter your token", [("Response: ", False)]),
    ],
)
def test_other_questions_are_a_second_factor(
    title: str, text: str, prompts: list[tuple[str, bool]]
) -> None:
    with pytest.raises(ssh_errors.SecondFactor):
        interview().answer(title, text, prompts)


def test_second_question_is_not_answered() -> None:
    one = interview()
    one.answer(*ASK)
    with pytest.raises(ssh_errors.SecondFactor):
        one.answer(*ASK)


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("", "New password: "),
        ("", "Enter new UNIX password: "),
        ("You are required to change your password immediately (password expired).", "Password: "),
        ("", "Current password: "),
        ("Your password has expired.", "Password: "),
    ],
)
def test_questions_for_a_new_password_are_told(text: str, prompt: str) -> None:
    one = interview()
    one.answer(*ASK)
    with pytest.raises(ssh_errors.PasswordExpired):
        one.answer("", text, [(prompt, False)])


def test_warning_that_it_will_expire_is_no_question() -> None:
    assert interview().answer("", "Your password will expire in 3 days.", []) == []


def test_endless_rounds_end() -> None:
    one = interview()
    with pytest.raises(ssh_errors.LoginRefused):
        for _ in range(ssh_prompts.QUESTIONS_LIMIT + 1):
            one.answer("", "", [])


def test_password_is_not_shown() -> None:
    assert "secret" not in repr(interview())
