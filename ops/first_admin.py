"""Makes the account `admin` if there is no administrator yet, and prints its generated password."""

import os
import secrets

import django
from django.contrib.auth import get_user_model

NAME = "admin"


def main() -> None:
    """Print the password, or nothing if there was an administrator before."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controller.project.settings")
    django.setup()
    users = get_user_model()._default_manager
    if not users.filter(is_superuser=True).exists():
        password = secrets.token_urlsafe(15)
        get_user_model().objects.create_superuser(NAME, "", password)
        print(password)


if __name__ == "__main__":
    main()
