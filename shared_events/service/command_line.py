"""How each process of a project begins: the commands by manage.py, the web server by wsgi.py."""

import os
import select
import sys
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError

from shared_events.kafka.configuration import KafkaConfigurationError
from shared_events.runtime.database import REFUSED_LOGIN, error_number, is_connection_lost, is_missing_table, is_passing

if TYPE_CHECKING:
    from django.core.handlers.wsgi import WSGIHandler


INTERRUPTED = 130
"""The exit code of a command that was ended by Ctrl-C, as a shell gives it."""


def run(settings_module: str) -> None:
    """Runs the command in sys.argv.

    A missing or wrong variable, a database that is away or has no tables, a closed pipe or Ctrl-C ends it with one sentence at most
    instead of a traceback; exit code 1, for Ctrl-C 130.
    """
    from django.core.management import execute_from_command_line

    os.environ["DJANGO_SETTINGS_MODULE"] = settings_module
    try:
        from django.conf import settings

        settings.INSTALLED_APPS  # noqa: B018 (reads the settings now)
        execute_from_command_line(sys.argv)
    except (ImproperlyConfigured, KafkaConfigurationError) as error:
        sys.exit(f"configuration: {error}")
    except (DatabaseError, InterfaceError) as error:
        if not (sentence := _sentence(error)):
            raise
        sys.exit(sentence)
    except BrokenPipeError:
        if not _is_unread(sys.stdout.fileno()):
            raise  # a socket's
        # Whoever read the output wants no more of it. At its exit Python would flush what is left into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _is_unread(descriptor: int) -> bool:
    """True of a pipe whose reader is gone."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _sentence(error: Exception) -> str:
    """What an operator can do about an error of the database; empty for a defect of ours."""
    words = error.args[1] if error_number(error) is not None and len(error.args) > 1 else error
    if error_number(error) in REFUSED_LOGIN:
        return f"configuration: the database refuses DATABASE_URL's account ({words}): check user, password, name and grants"
    if is_missing_table(error):
        return f"the database of DATABASE_URL is not set up ({words}): run `manage.py migrate` of this project first"
    if is_connection_lost(error) or "unable to open database file" in str(error):
        return f"the database of DATABASE_URL cannot be reached ({words}): check host, port or path, and that it runs; then try again"
    return f"the database is busy or away ({words}): try again" if is_passing(error) else ""


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
