"""Columns whose values are encrypted, and stay so until somebody asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models.query_utils import DeferredAttribute

from .. import crypto

if TYPE_CHECKING:
    TextField = models.TextField[Any, Any]  # generic in the stubs alone
else:
    TextField = models.TextField


class SealedAttribute(DeferredAttribute):
    """Seals whatever is assigned: no plain text stays on an instance."""

    def __set__(self, instance: models.Model, value: Any) -> None:
        instance.__dict__[self.field.attname] = sealed(value)


def sealed(value: Any) -> crypto.Sealed:
    """`value` as a sealed one."""
    return value if isinstance(value, crypto.Sealed) else crypto.seal(str(value or ""))


class SecretField(TextField):
    """Holds a Sealed; takes text. It is not editable: forms must write it on purpose."""

    descriptor_class = SealedAttribute

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("editable", False)
        kwargs.setdefault("blank", True)
        kwargs.setdefault("default", "")
        super().__init__(*args, **kwargs)

    def from_db_value(self, value: str | None, *_: Any) -> crypto.Sealed:
        return crypto.Sealed(value or "")

    def to_python(self, value: Any) -> crypto.Sealed:
        return sealed(value)

    def get_prep_value(self, value: Any) -> str:
        return sealed(value).token

    def get_lookup(self, lookup_name: str) -> Any:
        raise TypeError("A secret can't be searched for.")
