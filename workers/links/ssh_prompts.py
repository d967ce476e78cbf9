"""Answers exactly one question of a server, the one for the password; pure.

Whatever else is asked ends the login unanswered: an answer to a second factor would be a guess that
counts as a failure, and one to "New password:" would change the password.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from . import ssh_errors

QUESTIONS_LIMIT = 10
"""Rounds without a prompt, which only tell something, that a server may make."""

EXPIRED = re.compile(
    r"(new|current) (unix )?password|retype|password (has |is )?expired|password change required"
    r"|(required|have|need) to change|must (change|be changed)",
    re.IGNORECASE,
)
CHANGE = re.compile(r"(change|changing|update) (your )?password|expired", re.IGNORECASE)
"""After the password was taken; before it, an advice about passwords may say the same."""
PASSWORD = re.compile(r"pass(word|phrase)[^a-z]*$", re.IGNORECASE)
ONE_TIME = re.compile(r"one.?time|\botp\b|oath", re.IGNORECASE)
FACTOR = re.compile(
    r"verification|passcode|one.?time|\botp\b|oath|token|authenticat(or|ion) code|2fa"
    r"|two.?factor|second factor|duo\b|yubikey|\bpin\b|\bcode\b|\bsms\b",
    re.IGNORECASE,
)
FACTOR_WORDS = (
    "The server asks for more than a password (a second factor). This program can't answer that: "
    "log in with a key instead, or ask the cluster's support for an exception."
)
EXPIRED_WORDS = (
    "The password has expired: the server asks for a new one. Log in by hand, change it, and enter "
    "the new one here."
)

Prompt = tuple[str, bool]
"""What is asked, and whether the answer may be seen while it is typed."""


class Interview:
    """One keyboard-interactive login. `answer` raises what ends it."""

    def __init__(self, password: str) -> None:
        self._password = password
        self._rounds = 0
        self._has_answered = False

    def answer(self, title: str, instructions: str, prompts: Sequence[Prompt]) -> list[str]:
        """The answers to one round. Raises SecondFactor, PasswordExpired, LoginRefused."""
        self._rounds += 1
        words = " ".join([title, instructions, *(prompt for prompt, _ in prompts)])
        is_expired = EXPIRED.search(words) or (self._has_answered and CHANGE.search(words))
        if is_expired and (prompts or self._has_answered):
            raise ssh_errors.PasswordExpired(EXPIRED_WORDS)
        if not prompts:
            if self._rounds > QUESTIONS_LIMIT:
                raise ssh_errors.LoginRefused("The server asks without end. Log in with a key.")
            return []
        if self._has_answered or len(prompts) > 1 or not _is_for_password(prompts[0], words):
            raise ssh_errors.SecondFactor(FACTOR_WORDS)
        self._has_answered = True
        return [self._password]

    def __repr__(self) -> str:
        return f"Interview(rounds={self._rounds})"


def _is_for_password(question: Prompt, words: str) -> bool:
    """Whether a question is hidden and asks for the password, or at least for nothing known."""
    prompt, is_shown = question
    if is_shown:
        return False
    if PASSWORD.search(prompt):
        return not ONE_TIME.search(prompt)
    return not FACTOR.search(words)
