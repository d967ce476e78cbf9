#!/usr/bin/env python3
"""The command line of the standalone project."""

import os

from django.core.management import execute_from_command_line


def main() -> None:
    """Run one management command."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controller.project.settings")
    execute_from_command_line()


if __name__ == "__main__":
    main()
