"""The three ways to log in; each is tried once."""

from __future__ import annotations

from collections.abc import Iterable

import paramiko

from controller import private_keys

from . import clock, ssh_errors, ssh_keys, ssh_prompts
from .ssh_transport import PromptRefused, Transport

METHODS_LIMIT_S = 15.0
"""Until the server says which methods it takes; nothing secret was sent yet."""
LOGIN_LIMIT_S = 40.0
"""Until it answers the credentials."""


class Credentials:
    """One of the three ways to log in, checked as far as that goes without a server."""

    def __init__(self, key: str, password: str) -> None:
        self._key = ssh_keys.load(key, password) if key.strip() else None
        self._password = password
        self._sent_at: float | None = None
        if self._key is None and not password:
            raise ssh_errors.NoCredentials(private_keys.NEITHER)

    def log_in(self, transport: Transport, username: str) -> None:
        """One attempt. Raises LoginRefused, SecondFactor, PasswordExpired, HostSilent."""
        try:
            left = self._attempt(transport, username)
        except PromptRefused as problem:
            assert isinstance(problem.__cause__, ssh_errors.LoginError)  # noqa: S101
            raise problem.__cause__ from None
        except paramiko.BadAuthenticationType as problem:
            raise self._refused(username, problem.allowed_types) from None
        except (paramiko.SSHException, OSError, EOFError) as problem:
            if self._sent_at is None:
                raise ssh_errors.HostSilent(
                    f"The server broke off before the login: {_words(problem)}."
                ) from None
            if clock.now() - self._sent_at >= LOGIN_LIMIT_S:
                # It may count what it did not answer: to repeat that soon could lock the account.
                raise ssh_errors.HostSilent(
                    f"The server has the credentials and did not answer for {LOGIN_LIMIT_S:g} s: "
                    "it may be overloaded. The next login is tried in 10 minutes, or when someone "
                    "asks for it.",
                    pause_s=ssh_errors.REFUSED_PAUSE_S,
                ) from None
            # Whoever hangs up on credentials refuses them: so do PAM's account rules. To try again
            # by a timer could lock the account.
            words = transport.farewell or ("" if transport.is_active() else _last_words(transport))
            raise self._refused(username, (), words) from None
        finally:
            _forget(transport)
        if left:
            raise ssh_errors.SecondFactor(
                f"The server took the credentials and asks for more ({', '.join(left)}). "
                + ssh_prompts.FACTOR_WORDS
            )

    def _attempt(self, transport: Transport, username: str) -> list[str]:
        """Which methods are asked for besides, after one has succeeded."""
        transport.auth_timeout = METHODS_LIMIT_S
        offered = _methods(transport, username)
        if offered is None:
            return []
        transport.auth_timeout = LOGIN_LIMIT_S
        self._sent_at = clock.now()
        if self._key is not None:
            if "publickey" not in offered:
                raise paramiko.BadAuthenticationType("", offered)
            return transport.auth_publickey(username, self._key)
        if "password" in offered:
            return self._send_password(transport, username)
        if "keyboard-interactive" in offered:
            return self._be_interviewed(transport, username)
        raise paramiko.BadAuthenticationType("", offered)

    def _be_interviewed(self, transport: Transport, username: str) -> list[str]:
        interview = ssh_prompts.Interview(self._password)

        def answer(title: str, text: str, prompts: list[tuple[str, bool]]) -> list[str]:
            try:
                return interview.answer(title, text, prompts)
            except ssh_errors.LoginError as problem:
                raise PromptRefused from problem

        return transport.auth_interactive(username, answer)

    def _send_password(self, transport: Transport, username: str) -> list[str]:
        try:
            return transport.auth_password(username, self._password, fallback=False)
        except paramiko.AuthenticationException:
            raise
        except paramiko.SSHException:
            # The message for "change your password" has the number of "answer this", which
            # paramiko does not expect here. Source: RFC 4252, section 8, and RFC 4256, section 5.
            if transport.farewell or transport.is_active():
                raise
            raise PromptRefused from ssh_errors.PasswordExpired(ssh_prompts.EXPIRED_WORDS)

    def _refused(
        self, username: str, offered: Iterable[str], farewell: str = ""
    ) -> ssh_errors.LoginRefused:
        what = "key" if self._key is not None else "password"
        names = ", ".join(offered)
        if names:
            return ssh_errors.LoginRefused(
                f"The server lets nobody log in with a {what} as {username!r}; it offers {names}. "
                "Enter credentials of that kind."
            )
        hint = (
            "Check the user name, and that the public half of this key is in "
            "~/.ssh/authorized_keys there"
            if self._key is not None
            else "Check user name and password"
        )
        said = f' ("{farewell}")' if farewell else ""
        return ssh_errors.LoginRefused(
            f"The server refused the {what} of {username!r}{said}. {hint}. "
            "It is not tried again until the credentials are changed or someone asks for it."
        )


def _methods(transport: Transport, username: str) -> list[str] | None:
    """What the server offers, by asking for nothing as ssh does; None if that was enough."""
    try:
        return transport.auth_none(username) or None
    except paramiko.BadAuthenticationType as problem:
        return list(problem.allowed_types)


def _last_words(transport: Transport) -> str:
    """What a server that hangs up has said before, as PAM does."""
    # Not get_banner(), which has nothing to say of a connection that has ended.
    banner: bytes = getattr(transport.auth_handler, "banner", None) or b""
    lines = banner.decode("utf-8", "replace").strip().splitlines() or ["it hung up"]
    return "".join(c if c.isprintable() else " " for c in lines[-1])[:200]


def _forget(transport: Transport) -> None:
    """Let nothing of the connection hold the secrets any longer."""
    handler = transport.auth_handler
    if handler is not None:
        handler.password = handler.private_key = handler.interactive_handler = None


def _words(problem: BaseException) -> str:
    text = str(problem).strip().rstrip(".")
    return text or type(problem).__name__
