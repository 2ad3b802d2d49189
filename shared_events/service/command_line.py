"""What both manage.py files do."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line


def run(settings_module: str) -> None:
    """Runs the command in sys.argv. A missing or wrong variable ends it with one sentence instead of a traceback, exit code 1."""
    os.environ["DJANGO_SETTINGS_MODULE"] = settings_module
    try:
        from django.conf import settings

        settings.INSTALLED_APPS  # noqa: B018 (reads the settings now)
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"configuration: {error}")
