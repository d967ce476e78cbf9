"""The form of a cluster: its secrets go in and never come out again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.admin.widgets import AdminTextInputWidget
from django.core.exceptions import ValidationError
from django.forms.fields import InvalidJSONInput
from django.utils.safestring import mark_safe

from .. import errors
from ..models import HpcCluster
from ..services import credentials

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[HpcCluster]  # generic in the stubs alone
else:
    ModelForm = forms.ModelForm

SECRETS = ("key", "password")
MENDED = ("host_name", "client_path")
WRITTEN_BY_WORKERS = frozenset({"mode"})
"""Columns that may change while somebody has the form open."""

# The table of the design's section on logins.
THREE_WAYS = mark_safe(  # a constant
    '<div class="hpc-page"><p>There are three ways to log in by SSH:</p>'
    '<div class="hpc-wide"><table class="hpc-logins"><thead><tr><th>Private key</th>'
    "<th>Password</th><th>How it logs in</th></tr></thead><tbody>"
    "<tr><td>a key with a passphrase</td><td>the passphrase</td>"
    "<td>with the key, decrypted with the passphrase</td></tr>"
    "<tr><td>a key without a passphrase</td><td>empty</td><td>with the key</td></tr>"
    "<tr><td>empty</td><td>the user's password</td><td>with the password</td></tr>"
    "</tbody></table></div>"
    "<p>Both are encrypted at once, and shown to nobody again, not even on this page.</p></div>"
)


@dataclass(frozen=True)
class Entered:
    """What came of one secret's inputs; never printed."""

    text: str = field(default="", repr=False)
    is_removed: bool = False

    def __bool__(self) -> bool:
        return bool(self.text) or self.is_removed

    @property
    def change(self) -> str | None:
        """What `credentials.change` takes: None leaves the stored one, "" removes it."""
        return self.text if self else None


class SecretWidget(forms.Widget):
    """An input that starts empty, always; what is stored is only said to be there."""

    template_name = "admin/hpc_job_controller/secret.html"

    def __init__(self, *, is_text: bool) -> None:
        super().__init__()
        self.is_text = is_text
        self.is_stored = False
        self.is_entered_again = False

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        context = super().get_context(name, None, attrs)
        context["widget"] |= {
            "is_text": self.is_text,
            "is_stored": self.is_stored,
            "is_entered_again": self.is_entered_again,
            "remove": _remove(name),
        }
        return context

    def format_value(self, value: Any) -> None:
        return None

    def value_from_datadict(self, data: Any, files: Any, name: str) -> Entered:
        return Entered(data.get(name, ""), bool(data.get(_remove(name))))

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return name not in data and _remove(name) not in data


class SecretField(forms.Field):
    """Cleans to what was entered: in it the secret is not shown, should this program crash."""

    widget: SecretWidget

    def clean(self, value: Entered) -> Entered:
        if value.text and value.is_removed:
            raise ValidationError("Either enter another one or tick “Remove”, not both.")
        return value

    def has_changed(self, initial: Any, data: Entered | None) -> bool:
        return bool(data)


class LabelsField(forms.JSONField):
    """Refuses with a sentence, too, what Python reads no further: deep nesting, endless numbers."""

    def to_python(self, value: Any) -> Any:
        try:
            return super().to_python(value)
        except (RecursionError, ValueError):
            raise ValidationError(self.error_messages["invalid"], code="invalid") from None

    def bound_data(self, data: Any, initial: Any) -> Any:
        """What was typed, as it was typed: not all of it could be written anew."""
        return data if data is None else InvalidJSONInput(data)


class ClusterForm(ModelForm):
    """A cluster as people enter it; `mended` says what was stored in another form than typed."""

    key = SecretField(
        label="Private key",
        required=False,
        widget=SecretWidget(is_text=True),
        help_text="The whole file, such as id_ed25519: RSA, ECDSA or Ed25519, in OpenSSH or PEM "
        "format. Not the public key (.pub), and not PuTTY's format (.ppk).",
    )
    password = SecretField(
        label="Password",
        required=False,
        widget=SecretWidget(is_text=False),
        help_text="The passphrase of the key above; or, without a key, the user's password.",
    )

    class Meta:
        model = HpcCluster
        exclude = SECRETS
        field_classes = {"labels": LabelsField}
        widgets = {
            "setup_commands": forms.Textarea({"rows": 3, "cols": 72, "spellcheck": "false"}),
            "labels": forms.Textarea({"rows": 2, "cols": 72}),
            "username": AdminTextInputWidget({"autocomplete": "off", "spellcheck": "false"}),
        }
        help_texts = {
            "username": "The account on the cluster that jobs run as.",
            "client_path": "The client's directory on the cluster, absolute, such as "
            "/home/portal/hpc. Bootstrap makes it, and puts client.py there if there is none.",
            "mode": "Attached: where the site ends whatever a login leaves behind.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mended: list[str] = []
        for name in WRITTEN_BY_WORKERS.intersection(self.fields):
            self.fields[name].show_hidden_initial = True  # changed is what differs from the page
        self._loaded = {name: getattr(self.instance, name) for name in SECRETS}
        for name in SECRETS:
            widget = self._secret_widget(name)
            widget.is_stored = bool(self.instance.pk and getattr(self.instance, name))
            # Shown again only if something was refused, and what was typed is not sent back.
            widget.is_entered_again = bool(self.is_bound and self[name].data)

    def changed_columns(self) -> set[str]:
        """What differs from the row as it is stored now.

        Secrets, and what workers write, count only if this form changed them: meanwhile they may
        have been sealed or written anew.
        """
        stored = HpcCluster.objects.get(pk=self.instance.pk)
        columns = {field.name for field in stored._meta.concrete_fields} - {"id", *SECRETS}
        columns -= WRITTEN_BY_WORKERS.difference(self.changed_data)
        before = {**{name: getattr(stored, name) for name in columns}, **self._loaded}
        return {name for name, value in before.items() if getattr(self.instance, name) != value}

    def _post_clean(self) -> None:
        self._take_secrets()
        typed = {name: self.cleaned_data.get(name, "") for name in MENDED}
        super()._post_clean()  # type: ignore[misc]  # not in the stubs
        for name, before in typed.items():
            after = getattr(self.instance, name)
            if name not in self.errors and before != after:
                label = self.fields[name].label
                self.mended.append(f"{label} “{before}” was stored as “{after}”.")

    def _take_secrets(self) -> None:
        key, password = (self.cleaned_data.get(name) or Entered() for name in SECRETS)
        try:
            credentials.change(self.instance, key.change, password.change)
        except errors.Invalid as error:
            self.add_error("key" if key.text else "password", str(error))

    def _secret_widget(self, name: str) -> SecretWidget:
        widget = self.fields[name].widget
        assert isinstance(widget, SecretWidget)  # noqa: S101  # as declared above
        return widget


def _remove(name: str) -> str:
    return f"{name}-remove"
