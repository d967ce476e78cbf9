"""What tests of the admin's pages share."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

APP = "hpc_job_controller"


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
