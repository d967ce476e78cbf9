"""A private OpenSSH server on the loopback, with accounts that exist for it alone.

Its accounts, passwords and PAM rules lie over those of the system in a mount namespace of its own
(private_etc.py): no account of the system is made, used or changed. Run by root it has as many as
it is given; run by an ordinary user each of them is that user by another name.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ops import errors, processes, services

PRIVATE_ETC = Path(__file__).with_name("private_etc.py")
PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/lib/ssh")
READY_LIMIT_S = 20.0
STOP_LIMIT_S = 5.0
FIRST_UID = 200_000
"""Above what systems give to people; each run has a hundred of its own, by its pid."""
_free_uids = itertools.count(FIRST_UID + os.getpid() % 100_000 * 100)

PAM_RULES = """\
auth required pam_unix.so nodelay
account required pam_unix.so
password required pam_unix.so
session required pam_permit.so
"""
OPTIONS: Mapping[str, str] = {
    "UsePAM": "yes",
    "StrictModes": "no",  # the tests' directories are in /tmp, which all may write to
    "PidFile": "none",
    "UseDNS": "no",
    "PrintMotd": "no",
    "PrintLastLog": "no",
    "LogLevel": "VERBOSE",
    "PasswordAuthentication": "yes",
    "KbdInteractiveAuthentication": "no",
}


def find_sshd() -> Path:
    """The server; it must be called by its full path, because it starts itself anew."""
    found = shutil.which("sshd", path=os.pathsep.join([os.environ.get("PATH", ""), *PLACES]))
    if not found:
        raise errors.MissingProgram(
            "No sshd here: install openssh-server (on Debian and Ubuntu: apt install "
            "openssh-server)."
        )
    return Path(found)


@dataclass(frozen=True)
class Account:
    """Someone who can log in; `authorized` are lines of an authorized_keys file."""

    name: str
    home: Path
    password: str = field(default="", repr=False)
    authorized: Sequence[str] = ()
    shell: str = "/bin/bash"
    is_password_expired: bool = False
    uid: int = 0
    """Given by `Accounts.add`."""


class Accounts:
    """The accounts of some servers, written as files that lie over those of the system."""

    def __init__(self, directory: Path, pam_rules: str = PAM_RULES) -> None:
        self.directory = directory
        self.etc = directory / "etc"
        self.keys = directory / "keys"
        self.small_disk = directory / "small-disk"
        """Of 256 KiB, and open to all; each server has its own."""
        self.noexec_disk = directory / "noexec-disk"
        """Likewise, of 16 MiB, and nothing on it can be executed."""
        self.is_root = os.geteuid() == 0
        self._all: dict[str, Account] = {}
        directory.mkdir(mode=0o755)
        self.keys.mkdir()
        self.small_disk.mkdir()
        self.noexec_disk.mkdir()
        (self.etc / "pam.d").mkdir(parents=True)
        (self.etc / "pam.d" / "sshd").write_text(pam_rules)
        self._write()

    def add(self, account: Account) -> Account:
        """Make an account, with an empty home directory if it has none yet."""
        uid = next(_free_uids) if self.is_root else os.getuid()
        made = Account(**{**vars(account), "uid": uid})
        self._all[made.name] = made
        made.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.is_root:
            os.chown(made.home, uid, uid)
        (self.keys / made.name).write_text("".join(f"{line}\n" for line in made.authorized))
        self._write()
        return made

    def change_password(self, name: str, password: str) -> None:
        """As its owner does by passwd; it counts from the next login on."""
        self._all[name] = replace(self._all[name], password=password)
        self._write()

    def get(self, name: str) -> Account | None:
        """The account of that name, if it was made."""
        return self._all.get(name)

    def put(self, name: str, text: str) -> None:
        """Let /etc/`name`, which must exist, read `text` for servers that start from now on."""
        (self.etc / name).write_text(text)

    def around(self, argv: Sequence[str | Path], host_name: str = "") -> list[str | Path]:
        """The same program where these accounts exist, as on a machine of theirs.

        With `host_name` that machine has a name and a /tmp of its own.
        """
        launcher = (sys.executable, "-I", "-S", PRIVATE_ETC)
        disks = (self.small_disk, self.noexec_disk)
        return [*launcher, self.etc, *disks, host_name, "--", *argv]

    def uids(self) -> set[int]:
        """The uids that nobody else on this machine has."""
        return {account.uid for account in self._all.values()} if self.is_root else set()

    def end_processes(self) -> list[int]:
        """End what the accounts have left running; the pids that could not be ended."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self._running():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            if processes.wait_until(lambda: not self._running(), STOP_LIMIT_S):
                break
        return self._running()

    def _running(self) -> list[int]:
        uids = self.uids()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and entry.stat().st_uid in uids and not _is_dead(entry):
                    found.append(int(entry.name))
        return found

    def _write(self) -> None:
        # The files are written in place: a new file would not show through a mount.
        passwd, group, shadow = [], [], []
        for account in self._all.values():
            place = f"{account.home}:{account.shell}"
            gid = account.uid if self.is_root else os.getgid()
            passwd.append(f"{account.name}:x:{account.uid}:{gid}:test:{place}")
            group.append(f"{account.name}:x:{gid}:")
            changed = 0 if account.is_password_expired else 19_000
            shadow.append(f"{account.name}:{_hashed(account.password)}:{changed}:0:99999:7:::")
        for name, lines in (("passwd", passwd), ("group", group)):
            system = (Path("/etc") / name).read_text().splitlines()
            (self.etc / name).write_text("\n".join([*lines, *system]) + "\n")
        with open(self.etc / "shadow", "w", opener=services.private_file) as file:
            file.write("".join(f"{line}\n" for line in shadow))


class Sshd:
    """One server at one address, with host keys and options of its own.

    With `host_name` it is a host of that name to its sessions, and its /tmp is not that of others.
    """

    def __init__(
        self,
        directory: Path,
        accounts: Accounts,
        host_keys: Sequence[Path],
        options: Mapping[str, str] | None = None,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        host_name: str = "",
    ) -> None:
        self.directory = directory
        self._host_name = host_name
        self.address = address
        self.port = port
        self.child: processes.Child | None = None
        self._accounts = accounts
        self._host_keys = host_keys
        self._options = {**OPTIONS, **(options or {})}

    @property
    def log(self) -> str:
        """What the server has said."""
        path = self.directory / "sshd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start the server and wait until it listens."""
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        ports = services.candidate_ports(self.port)
        if not any(self._starts(port) for port in ports):
            raise errors.NotStarted(f"sshd did not start: {self.log[-1000:]}")

    def stop(self) -> None:
        """End the server and its sessions; what they have left running detached goes on."""
        if self.child is None:
            return
        descendants = _descendants(self.child.pid)
        processes.stop(self.child, limit_s=STOP_LIMIT_S)
        for pid in descendants:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.child = None

    def _starts(self, port: int) -> bool:
        self.port = port
        configuration = self.directory / "sshd_config"
        configuration.write_text(self._configuration())
        self.child = processes.start(
            "sshd",
            self._accounts.around([find_sshd(), "-D", "-e", "-f", configuration], self._host_name),
            log=self.directory / "sshd.log",
            environment={"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"},
        )
        processes.wait_until(self._is_settled, READY_LIMIT_S)
        if not self.child.has_ended and self._listens():
            return True
        self.stop()
        return False

    def _configuration(self) -> str:
        own = {
            "Port": str(self.port),
            "ListenAddress": self.address,
            "AuthorizedKeysFile": str(self._accounts.keys / "%u"),
        }
        lines = [f"HostKey {path}" for path in self._host_keys]
        lines += [f"{name} {value}" for name, value in {**own, **self._options}.items()]
        return "\n".join(lines) + "\n"

    def _is_settled(self) -> bool:
        return (self.child is not None and self.child.has_ended) or self._listens()

    def _listens(self) -> bool:
        # Its own words: a connection made to find out would count among those it limits.
        return f"Server listening on {self.address} port {self.port}." in self.log


def make_key(path: Path, kind: str, passphrase: str = "", form: str = "", bits: int = 0) -> Path:
    """A new key pair by ssh-keygen; `form` is RFC4716 (OpenSSH's own), PKCS8 or PEM."""
    options = [*(("-m", form) if form else ()), *(("-b", str(bits)) if bits else ())]
    # Few rounds: how long it takes to guess the passphrase is nothing that tests are about.
    argv = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "", "-a", "4", "-f", str(path)]
    subprocess.run([*argv, *options], check=True, timeout=60, stdin=subprocess.DEVNULL)
    return path


def convert_key(path: Path, copy: Path, passphrase: str, form: str = "") -> Path:
    """The same key pair in another format or with another passphrase."""
    shutil.copy(path, copy)
    shutil.copy(path.with_name(path.name + ".pub"), copy.with_name(copy.name + ".pub"))
    options = ["-m", form] if form else []
    argv = ["ssh-keygen", "-q", "-p", "-P", "", "-N", passphrase, "-a", "4", "-f", str(copy)]
    subprocess.run([*argv, *options], check=True, timeout=60, stdin=subprocess.DEVNULL)
    return copy


def public_line(path: Path) -> str:
    """The line for authorized_keys."""
    return path.with_name(path.name + ".pub").read_text().strip()


def fingerprint(path: Path) -> str:
    """What ssh-keygen prints for a key: SHA256:..."""
    argv = ["ssh-keygen", "-l", "-E", "sha256", "-f", str(path.with_name(path.name + ".pub"))]
    done = subprocess.run(argv, check=True, timeout=60, capture_output=True, text=True)
    return done.stdout.split()[1]


def closed_port(address: str = "127.0.0.1") -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
    return port


def _hashed(password: str) -> str:
    """For /etc/shadow, by the C library, because Python 3.13 has no `crypt` any more."""
    if not password:
        return "*"
    library = ctypes.CDLL(ctypes.util.find_library("crypt") or "libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    salt = f"$6$rounds=1000${secrets.token_hex(6)}$"
    hashed: bytes = library.crypt(password.encode(), salt.encode())
    return hashed.decode()


def family(server: Sshd) -> list[int]:
    """The pids of a server and of all that it has started."""
    return [server.child.pid, *_descendants(server.child.pid)] if server.child else []


def _descendants(pid: int) -> list[int]:
    found = []
    children = Path(f"/proc/{pid}/task/{pid}/children")
    with contextlib.suppress(OSError):
        for word in children.read_text().split():
            found += [int(word), *_descendants(int(word))]
    return found


def _is_dead(directory: Path) -> bool:
    state = (directory / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    return state in "ZX"


def wait_for_log(server: Sshd, words: str, limit_s: float = 5.0) -> bool:
    """Whether the server says `words` within the limit."""
    return processes.wait_until(lambda: words in server.log, limit_s, time.sleep)
