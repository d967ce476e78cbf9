"""What a cluster is logged in to with: taken from a form or a command, and checked as a login does.

A private key, with its passphrase in the password if it has one; or a password alone. What holds
them in plain text hides its variables, and those of all it calls, from Django's reports of crashes.
"""

from __future__ import annotations

from django.views.decorators.debug import sensitive_variables

from .. import errors, private_keys
from ..models import Carrier, HpcCluster

KEY, PASSWORD = "key", "password"
PASSWORD_LIMIT_BYTES = 1024
"""Longer ones no OpenSSH server takes.

Source: MAX_PASSWORD_LEN, https://github.com/openssh/openssh-portable/blob/master/auth-passwd.c
"""


@sensitive_variables()
def change(cluster: HpcCluster, key: str | None, password: str | None) -> None:
    """Put what was entered on the cluster: None leaves what is stored, "" removes it.

    A stored password goes with the key that is taken away: it was the key's passphrase, and would
    be sent to the cluster now. Saves nothing. Raises Invalid for text that can't be sealed.
    """
    key = key if key is None or key.strip() else ""
    if key == "" and cluster.key and password is None:
        password = ""
    if key is not None:
        cluster.key = private_keys.mend(key)
    if password is not None:
        cluster.password = password


@sensitive_variables()
def check(cluster: HpcCluster) -> dict[str, str]:
    """A sentence by column for what would keep a login from being tried; none if all is well."""
    if cluster.carrier == Carrier.LOCAL:
        return {}
    secrets, problems = {}, {}
    for column in (KEY, PASSWORD):
        try:
            secrets[column] = getattr(cluster, column).reveal()
        except errors.CannotDecrypt as error:
            problems[column] = str(error)
    return problems or _problems(secrets[KEY], secrets[PASSWORD])


def _problems(key: str, password: str) -> dict[str, str]:
    if "\0" in password:
        return {PASSWORD: "It holds a NUL character, which no login can send: enter it anew."}
    if not key.strip():
        return _password_problems(password)
    try:
        private_keys.load(key, password)
    except (errors.PassphraseMissing, errors.WrongPassphrase) as problem:
        return {PASSWORD: str(problem)}
    except errors.BadCredentials as problem:
        return {KEY: str(problem)}
    return {}


def _password_problems(password: str) -> dict[str, str]:
    if not password:
        return {KEY: private_keys.NEITHER}
    if len(password.encode()) > PASSWORD_LIMIT_BYTES:
        return {
            PASSWORD: f"It is longer than {PASSWORD_LIMIT_BYTES} bytes: no server takes such a"
            " password. Enter the password of the account."
        }
    return {}
