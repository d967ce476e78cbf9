"""The portal's people: no user names, no staff."""

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.db import models


class Person(AbstractBaseUser, PermissionsMixin):
    address = models.EmailField(primary_key=True)
    is_staff = models.BooleanField(default=False)

    USERNAME_FIELD = EMAIL_FIELD = "address"
    objects = BaseUserManager["Person"]()

    def __str__(self) -> str:
        return self.address
