"""What WSGI servers load; the admin's own style sheets are served along, by Django itself."""

import os

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controller.project.settings")

application = StaticFilesHandler(get_wsgi_application())
