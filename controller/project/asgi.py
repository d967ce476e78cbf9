"""What ASGI servers load; the admin's own style sheets are served along, by Django itself."""

import os

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controller.project.settings")

application = ASGIStaticFilesHandler(get_asgi_application())
