"""The three ways to log in, and everything that can go wrong on the way."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import paramiko
import pytest

from ops import sshd
from workers.links import ssh, ssh_errors, ssh_handshake, ssh_keys, ssh_login

from .site import PASSPHRASE, PASSWORD, USER, CountingGate, Site

FORMS = [
    ("rsa", ""),
    ("rsa", "PEM"),
    ("rsa", "PKCS8"),
    ("ecdsa", ""),
    ("ecdsa", "PEM"),
    ("ecdsa", "PKCS8"),
    ("ed25519", ""),
]
WRONG = "not-the-password"
KEYBOARD = {"PasswordAuthentication": "no", "KbdInteractiveAuthentication": "yes"}


def log_in(login: ssh.Login) -> None:
    transport, _ = ssh.open_transport(login)
    assert transport.is_authenticated()
    ssh.close(transport)


def refused(login: ssh.Login, kind: type[ssh_errors.LoginError]) -> ssh_errors.LoginError:
    """The error of a login, which must be exactly that and show no secret."""
    with pytest.raises(ssh_errors.LoginError) as caught:
        ssh.open_transport(login)
    problem = caught.value
    assert type(problem) is kind, problem
    assert str(problem).endswith("."), problem
    for secret in (login.password.strip(), *login.key.split("\n")[1:3]):
        assert not secret or secret not in f"{problem!r} {problem} {login!r}"
    return problem


@pytest.fixture(scope="module")
def authorized(site: Site) -> str:
    """The user whom each of the keys opens."""
    keys = [site.user_key(kind, form, word) for kind, form in FORMS for word in ("", PASSPHRASE)]
    site.accounts.add(
        sshd.Account(
            "grace",
            site.directory / "home" / "grace",
            authorized=[sshd.public_line(key) for key in keys],
        )
    )
    return "grace"


@pytest.mark.parametrize("passphrase", ["", PASSPHRASE], ids=["plain", "passphrase"])
@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_key_logs_in(site: Site, authorized: str, kind: str, form: str, passphrase: str) -> None:
    key = site.user_key(kind, form, passphrase).read_text()
    log_in(site.login(site.server(), authorized, key=key, password=passphrase))


def test_ed25519_key_in_pkcs8_logs_in(site: Site) -> None:
    argv = ["openssl", "genpkey", "-algorithm", "ed25519"]
    text = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    public = ssh_keys.load(text, "")
    line = f"{public.get_name()} {public.get_base64()}"
    home = site.directory / "home" / "emmy"
    site.accounts.add(sshd.Account("emmy", home, authorized=[line]))
    log_in(site.login(site.server(), "emmy", key=text))


def test_pasted_key_is_mended(site: Site) -> None:
    text = site.key.read_text().strip().replace("\n", "\r\n")
    log_in(site.login(site.server(), key=text))


@pytest.mark.parametrize("options", [{}, KEYBOARD], ids=["password", "keyboard-interactive"])
def test_password_logs_in_unstripped(site: Site, options: dict[str, str]) -> None:
    server = site.server(**options)
    log_in(site.login(server, password=PASSWORD))
    refused(site.login(server, password=PASSWORD.strip()), ssh_errors.LoginRefused)


def test_rsa_signs_with_sha2_where_sha1_is_refused(site: Site, authorized: str) -> None:
    server = site.server(PubkeyAcceptedAlgorithms="rsa-sha2-512", HostKeyAlgorithms="rsa-sha2-512")
    log_in(site.login(server, authorized, key=site.user_key("rsa").read_text()))


# What goes wrong before the network ---------------------------------------------------------------


def test_credentials_are_judged_before_the_network(site: Site) -> None:
    nowhere = ssh.Login("127.0.0.1", USER, sshd.closed_port(), pins=site.pins())
    encrypted = site.user_key("ed25519", "", PASSPHRASE).read_text()
    replace = dataclasses.replace
    refused(nowhere, ssh_errors.NoCredentials)
    refused(replace(nowhere, key=encrypted), ssh_errors.PassphraseMissing)
    refused(replace(nowhere, key=encrypted, password=WRONG), ssh_errors.WrongPassphrase)
    refused(replace(nowhere, key="a key"), ssh_errors.BadKey)
    no_pins = replace(nowhere, password=WRONG, pins=frozenset())
    refused(no_pins, ssh_errors.HostKeyUnconfirmed)


# What the server refuses --------------------------------------------------------------------------


def test_unknown_key_is_refused_once(site: Site) -> None:
    server = site.new_server()
    stranger = site.user_key("ecdsa", "PEM").read_text()
    problem = refused(site.login(server, USER, key=stranger), ssh_errors.LoginRefused)
    assert not problem.transient
    assert "authorized_keys" in str(problem)
    assert sshd.wait_for_log(server, "Connection closed by authenticating user")
    assert server.log.count("Failed publickey") <= 1


def test_unknown_user_is_refused(site: Site) -> None:
    refused(site.login(site.server(), "nobody-here"), ssh_errors.LoginRefused)


def test_last_attempt_is_refused_with_the_words_of_the_server(site: Site) -> None:
    server = site.server(MaxAuthTries="1")
    problem = refused(site.login(server, password=WRONG), ssh_errors.LoginRefused)
    assert "Too many authentication failures" in str(problem)


def test_account_that_may_not_log_in_is_refused(site: Site) -> None:
    # sshd hangs up without a word of the protocol; what PAM said came before, as a banner.
    rules = "auth required pam_unix.so nodelay\naccount required pam_nologin.so file={}\n"
    notice = site.directory / "nologin"
    notice.write_text("The cluster is closed for maintenance.\n")
    accounts = private_site(site, rules.format(notice))
    home = site.directory / "home" / "barred"
    accounts.add(sshd.Account("barred", home, authorized=[sshd.public_line(site.key)]))
    server = site.new_server(accounts=accounts)
    problem = refused(site.login(server, "barred"), ssh_errors.LoginRefused)
    assert "closed for maintenance" in str(problem)


def test_method_that_is_not_offered_is_told(site: Site) -> None:
    server = site.server(PasswordAuthentication="no")
    problem = refused(site.login(server, password=PASSWORD), ssh_errors.LoginRefused)
    assert "publickey" in str(problem)
    server = site.server(PubkeyAuthentication="no")
    problem = refused(site.login(server), ssh_errors.LoginRefused)
    assert "password" in str(problem)


# More than a password -----------------------------------------------------------------------------


def private_site(site: Site, rules: str) -> sshd.Accounts:
    """Accounts with PAM rules of their own."""
    directory = site.directory / f"accounts-{abs(hash(rules))}"
    return sshd.Accounts(directory, rules)


def test_second_prompt_is_a_second_factor_and_not_answered(site: Site) -> None:
    # A module that asks on its own account, whatever the one before has asked already.
    rules = sshd.PAM_RULES + "auth required pam_userdb.so db=/nonexistent\n"
    accounts = private_site(site, rules)
    home = site.directory / "home" / "two"
    accounts.add(sshd.Account("two", home, password=PASSWORD))
    server = site.new_server(KEYBOARD, accounts=accounts)
    problem = refused(site.login(server, "two", password=PASSWORD), ssh_errors.SecondFactor)
    assert not problem.transient


def test_second_method_is_a_second_factor(site: Site) -> None:
    server = site.server(
        AuthenticationMethods="publickey,keyboard-interactive", KbdInteractiveAuthentication="yes"
    )
    problem = refused(site.login(server), ssh_errors.SecondFactor)
    assert "keyboard-interactive" in str(problem)


def test_expired_password_is_told_and_not_changed(site: Site) -> None:
    site.add_account("old", password=PASSWORD, is_password_expired=True)
    server = site.server(**KEYBOARD)
    before = (site.accounts.etc / "shadow").read_text()
    refused(site.login(server, "old", password=PASSWORD), ssh_errors.PasswordExpired)
    assert (site.accounts.etc / "shadow").read_text() == before


class ForcesChange(paramiko.ServerInterface):
    """Answers a password by asking for a new one: OpenSSH does so by other means, others do not."""

    def __init__(self) -> None:
        self.passwords: list[str] = []

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_auth_password(self, username: str, password: str) -> int:
        self.passwords.append(password)
        question = paramiko.Message()
        question.add_byte(bytes([60]))  # SSH_MSG_USERAUTH_PASSWD_CHANGEREQ, RFC 4252, section 8
        question.add_string("Your password is too old.")
        question.add_string("en")
        self.transport._send_message(question)
        return paramiko.AUTH_FAILED


class Ponders(ForcesChange):
    """Takes a password and says nothing, as where a directory server does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.is_over = threading.Event()

    def check_auth_password(self, username: str, password: str) -> int:
        self.passwords.append(password)
        self.is_over.wait(10)
        return paramiko.AUTH_FAILED


@contextmanager
def odd_server(site: Site, server: ForcesChange) -> Iterator[ssh.Login]:
    """A login by password to a server that takes one connection."""
    key = paramiko.Ed25519Key.from_private_key_file(str(site.host_keys[0]))
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            server.transport = paramiko.Transport(listening.accept()[0])
            server.transport.add_server_key(key)
            server.transport.start_server(threading.Event(), server)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listening.getsockname()[1]
        yield ssh.Login("127.0.0.1", USER, port, password=PASSWORD, pins=site.pins())
        thread.join()
        server.transport.close()


def test_request_for_another_password_is_not_answered(site: Site) -> None:
    server = ForcesChange()
    with odd_server(site, server) as login:
        refused(login, ssh_errors.PasswordExpired)
    assert server.passwords == [PASSWORD]


def test_credentials_that_are_not_answered_are_not_sent_again_soon(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_login, "LOGIN_LIMIT_S", 0.5)
    server = Ponders()
    with odd_server(site, server) as login:
        problem = refused(login, ssh_errors.HostSilent)
        server.is_over.set()
    assert problem.transient
    assert problem.pause_s >= 600
    assert server.passwords == [PASSWORD]


# Hosts --------------------------------------------------------------------------------------------


def test_unknown_host_and_closed_port_are_told_apart(site: Site) -> None:
    login = ssh.Login("no-such-host.invalid", USER, password=WRONG, pins=site.pins())
    problem = refused(login, ssh_errors.HostUnknown)
    assert problem.transient
    login = ssh.Login("127.0.0.1", USER, sshd.closed_port(), password=WRONG, pins=site.pins())
    problem = refused(login, ssh_errors.HostUnreachable)
    assert problem.transient
    assert "listens" in str(problem)


@contextmanager
def listener(says: bytes, *, hangs_up: bool) -> Iterator[int]:
    """A port that says something to each who connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def serve() -> None:
            try:
                while True:
                    connection, _ = server.accept()
                    connection.sendall(says)
                    if hangs_up:
                        connection.shutdown(socket.SHUT_WR)
                    kept.append(connection)
            except OSError:
                return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in kept:
                connection.close()


def test_hanging_up_first_pauses_for_ten_minutes(site: Site) -> None:
    with listener(b"Not allowed at this time\r\n", hangs_up=True) as port:
        login = ssh.Login("127.0.0.1", USER, port, password=WRONG, pins=site.pins())
        problem = refused(login, ssh_errors.RefusedBeforeBanner)
    assert problem.transient
    assert problem.pause_s >= 600
    assert "Not allowed at this time" in str(problem)


def test_max_startups_is_refused_before_the_banner(site: Site) -> None:
    server = site.new_server({"MaxStartups": "1:100:1"})
    with socket.create_connection((server.address, server.port)):
        assert sshd.wait_for_log(server, "Connection from")
        problem = refused(site.login(server), ssh_errors.RefusedBeforeBanner)
    assert problem.pause_s >= 600


@pytest.mark.parametrize(
    ("says", "hangs_up"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", True), (b"220 mail ESMTP\r\n", False)],
    ids=["http", "smtp"],
)
def test_other_server_is_no_ssh(
    site: Site, monkeypatch: pytest.MonkeyPatch, says: bytes, hangs_up: bool
) -> None:
    monkeypatch.setattr(ssh_handshake, "BANNER_LIMIT_S", 0.3)
    with listener(says, hangs_up=hangs_up) as port:
        login = ssh.Login("127.0.0.1", USER, port, password=WRONG, pins=site.pins())
        refused(login, ssh_errors.NotSsh)


def test_silent_host_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_handshake, "BANNER_LIMIT_S", 0.3)
    monkeypatch.setattr(ssh_handshake, "NEGOTIATION_LIMIT_S", 0.3)
    for words in (b"", b"SSH-2.0-OpenSSH_9.2\r\n"):
        with listener(words, hangs_up=False) as port:
            login = ssh.Login("127.0.0.1", USER, port, password=WRONG, pins=site.pins())
            assert refused(login, ssh_errors.HostSilent).transient


def test_old_server_has_no_common_algorithm(site: Site) -> None:
    server = site.server(Ciphers="aes256-cbc")
    refused(site.login(server), ssh_errors.NoCommonAlgorithm)


def test_spent_budget_makes_no_attempt(site: Site) -> None:
    server = site.new_server()
    with pytest.raises(ssh_errors.BudgetSpent) as caught:
        ssh.open_transport(site.login(server), gate=CountingGate(33.0))
    assert caught.value.pause_s == 33.0
    assert "preauth" not in server.log


def test_gate_hears_once_of_each_login_whatever_comes_of_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = CountingGate(*[0.0] * 4)
    server = site.server()
    transport, _ = ssh.open_transport(site.login(server), gate=gate)
    ssh.close(transport)
    closed = ssh.Login("127.0.0.1", USER, sshd.closed_port(), password=WRONG, pins=site.pins())
    for login in (closed, site.login(server, password=WRONG)):
        with pytest.raises(ssh_errors.LoginError):
            ssh.open_transport(login, gate=gate)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ssh_login.Credentials, "log_in", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ssh.open_transport(site.login(server), gate=gate)
    assert gate.heard == ["good", "host_unreachable", "login_refused", "host_silent"]
    # What never came to an attempt is not counted.
    with pytest.raises(ssh_errors.NoCredentials):
        ssh.open_transport(site.login(server, key=""), gate=gate)
