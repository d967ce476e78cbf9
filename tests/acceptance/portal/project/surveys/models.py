"""A portal's own kind of job."""

from typing import Any

from django.db import models

from controller.models import HpcCluster, HpcJob


class Survey(HpcJob):
    """Looks at one field of the sky; runs where the site is dark."""

    field_of_view = models.CharField(max_length=40)

    def choose_cluster(self, parameters: Any) -> HpcCluster | None:
        return HpcCluster.objects.filter(name="dark-site").first()

    def render(self, parameters: Any) -> str:
        exposures = int(parameters["exposures"])
        return f"#!/bin/bash\nfor n in $(seq {exposures}); do echo {self.field_of_view} $n; done\n"


class Notice(models.Model):
    """What the portal has told its people."""

    survey = models.ForeignKey(Survey, on_delete=models.CASCADE, related_name="notices")
    words = models.CharField(max_length=200)

    def __str__(self) -> str:
        return self.words
