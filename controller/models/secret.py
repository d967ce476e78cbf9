"""Columns whose values are encrypted, and stay so until somebody asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.lookups import Exact
from django.db.models.query_utils import DeferredAttribute

from .. import crypto

if TYPE_CHECKING:
    TextField = models.TextField[Any, Any]  # generic in the stubs alone
else:
    TextField = models.TextField

DUMPED = "sealed:"
"""What `dumpdata` writes before a token, so that `loaddata` knows it from plain text."""


class SealedAttribute(DeferredAttribute):
    """Seals whatever is assigned: no plain text stays on an instance."""

    def __set__(self, instance: models.Model, value: Any) -> None:
        value, held = sealed(value), instance.__dict__.get(self.field.attname)
        if value.is_stored and not instance._state.adding and value is not held:
            value = crypto.Sealed(value.token)  # assigned by hand: it may be another row's
        instance.__dict__[self.field.attname] = value


def sealed(value: Any) -> crypto.Sealed:
    """`value` (text, None for none, or a sealed one) as a sealed one."""
    if isinstance(value, crypto.Sealed):
        return value
    if value is not None and not isinstance(value, str):
        raise TypeError(f"A secret is text; this is of type {type(value).__name__}.")
    return crypto.seal(value or "")


class SecretField(TextField):
    """Holds a Sealed; takes text. It is not editable: forms must write it on purpose.

    A row that is saved leaves secrets alone that nobody assigned, so that a page that was loaded
    before another changed them brings no older ones back.
    """

    descriptor_class = SealedAttribute

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("editable", False)
        kwargs.setdefault("blank", True)
        kwargs.setdefault("default", "")
        super().__init__(*args, **kwargs)

    def from_db_value(self, value: str | None, *_: Any) -> crypto.Sealed:
        return crypto.Sealed(value or "", is_stored=True)

    def to_python(self, value: Any) -> crypto.Sealed:
        """What a fixture holds: a sealed secret as `dumpdata` writes it, or plain text."""
        if not isinstance(value, str) or not value.startswith(DUMPED):
            return sealed(value)
        token = value.removeprefix(DUMPED)
        if not crypto.TOKEN.fullmatch(token):
            raise ValidationError(f"What follows {DUMPED!r} is no sealed secret.")
        return crypto.Sealed(token)

    def value_to_string(self, obj: models.Model) -> str:
        """For `dumpdata`: sealed, as it is stored."""
        token: str = self.value_from_object(obj).token
        return DUMPED + token if token else ""

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        value = super().pre_save(model_instance, add)
        return models.F(self.attname) if value.is_stored and not add else value

    def get_prep_value(self, value: Any) -> str:
        return sealed(value).token

    def get_lookup(self, lookup_name: str) -> Any:
        if lookup_name != SealedAs.lookup_name:
            raise TypeError("A secret can't be searched for.")
        return super().get_lookup(lookup_name)


@SecretField.register_lookup
class SealedAs(Exact):
    """The column holds this very Sealed: for what must not overwrite a newer one."""

    lookup_name = "sealed_as"

    def get_rhs_op(self, connection: Any, rhs: str) -> str:
        return str(connection.operators[Exact.lookup_name] % rhs)
