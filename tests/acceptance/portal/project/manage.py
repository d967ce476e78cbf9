"""The command line of a portal that has nothing to do with ours."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "observatory.settings")
    execute_from_command_line(sys.argv)
