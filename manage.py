#!/usr/bin/env python3
"""The command line of the standalone project."""

import importlib.util
import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line


def main() -> None:
    """Run one management command; settings that can't be used are one sentence."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controller.project.settings")
    try:
        if importlib.util.find_spec("workers"):  # a web host may do without
            from workers import install

            install.offer_ssh()
        execute_from_command_line()
    except ImproperlyConfigured as problem:
        if "--traceback" in sys.argv:
            raise
        sys.exit(" ".join(str(problem).split()))


if __name__ == "__main__":
    main()
