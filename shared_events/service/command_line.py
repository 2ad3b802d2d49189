"""How each process of a project begins: the commands by manage.py, the web server by wsgi.py."""

import os
import sys
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError

from shared_events.kafka.configuration import KafkaConfigurationError
from shared_events.runtime.database import REFUSED_LOGIN, error_number

if TYPE_CHECKING:
    from django.core.handlers.wsgi import WSGIHandler


def run(settings_module: str) -> None:
    """Runs the command in sys.argv. A missing or wrong variable ends it with one sentence instead of a traceback, exit code 1."""
    from django.core.management import execute_from_command_line

    os.environ["DJANGO_SETTINGS_MODULE"] = settings_module
    try:
        from django.conf import settings

        settings.INSTALLED_APPS  # noqa: B018 (reads the settings now)
        execute_from_command_line(sys.argv)
    except (ImproperlyConfigured, KafkaConfigurationError) as error:
        sys.exit(f"configuration: {error}")
    except OperationalError as error:
        if error_number(error) not in REFUSED_LOGIN:
            raise
        sys.exit(
            f"configuration: the database refuses DATABASE_URL's account ({error.args[1]}): check user, password, name and grants"
        )


def wsgi_application(settings_module: str) -> "WSGIHandler":
    """The project's WSGI application. A missing, wrong or contradictory variable ends the process as it ends a command.

    A command runs the system checks by itself; a web server would begin to serve without them.
    """
    from django.core.checks import run_checks
    from django.core.wsgi import get_wsgi_application

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", settings_module)
    try:
        application = get_wsgi_application()
    except ImproperlyConfigured as error:
        sys.exit(f"configuration: {error}")
    errors = [message for message in run_checks() if message.is_serious()]
    if errors:
        sys.exit("\n".join(f"configuration: {error}" for error in errors))
    return application
