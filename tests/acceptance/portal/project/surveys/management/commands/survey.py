"""Does what a view of the portal would do."""

import json
from typing import Any

from django.core.management.base import BaseCommand
from people.models import Person

from surveys.models import Survey
from surveys.tasks import count_stars


class Command(BaseCommand):
    def handle(self, *_: Any, **__: Any) -> None:
        owner = Person.objects.create(address="ada@example.org")
        survey = Survey(field_of_view="M31", owner=owner, name="first light")
        status = survey.submit({"exposures": 3, "observer": "Ada"})
        stars = count_stars.delay(2).get(timeout=30)
        answer = {"id": survey.pk, "status": status.name, "stars": stars}
        self.stdout.write(json.dumps(answer))
