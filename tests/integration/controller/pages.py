"""What tests of the admin's pages share."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from controller.models import HpcCluster

APP = "hpc_job_controller"
FORM = {
    "name": "south", "host_name": "login.south.example", "port": "22", "username": "portal",
    "carrier": "", "client_path": "/opt/hpc/client.py", "python": "", "mode": "detached",
    "scheduler": "slurm", "setup_commands": "module load x\r\n", "umask": "0077", "group": "",
    "labels": "", "key": "", "password": "",
}  # fmt: skip
ED25519 = ("ssh-ed25519", "SHA256:" + "A" * 43, "192.0.2.17")


def url(model: str, page: str, *arguments: object) -> str:
    return reverse(f"admin:{APP}_{model}_{page}", args=arguments)


def act(client: Client, model: str, action: str, *objects: Any) -> str:
    """Run an action on chosen rows; returns the messages."""
    data = {"action": action, "_selected_action": [chosen.pk for chosen in objects]}
    response = client.post(url(model, "changelist"), data, follow=True)
    assert response.status_code == 200
    return " | ".join(str(message) for message in response.context["messages"])


def user_with(*codenames: str) -> User:
    """A member of the staff with these permissions."""
    made = User.objects.create_user("-".join(codenames)[:100], is_staff=True)
    made.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return made


def private_key(passphrase: str = "") -> str:
    """A key in OpenSSH's format, as a browser sends it."""
    cipher = (
        serialization.BestAvailableEncryption(passphrase.encode())
        if passphrase
        else serialization.NoEncryption()
    )
    key = ed25519.Ed25519PrivateKey.generate()
    form = serialization.PrivateFormat.OpenSSH
    text = key.private_bytes(serialization.Encoding.PEM, form, cipher).decode()
    return text.strip().replace("\n", "\r\n")


class Watched(Client):
    """A browser whose every answer is searched for what must not be in it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.secrets: list[str] = []

    def request(self, **kwargs: Any) -> Any:
        response = super().request(**kwargs)
        body = response.content.decode()
        for secret in self.secrets:
            assert secret not in body
            assert secret not in str(response.headers)
        return response


def page_of(client: Client, cluster: HpcCluster) -> str:
    response = client.get(url("hpccluster", "change", cluster.pk))
    assert response.status_code == 200
    return response.content.decode()


def press(client: Client, cluster: HpcCluster, name: str) -> str:
    """Press a button; returns the messages."""
    response = client.post(url("hpccluster", "do", cluster.pk, name), follow=True)
    assert response.status_code == 200
    return " | ".join(str(message) for message in response.context["messages"])


def refusals(response: Any) -> dict[str, str]:
    return {
        name: " ".join(told) for name, told in response.context["adminform"].form.errors.items()
    }
