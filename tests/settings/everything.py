"""Both services at once, for the type checker alone."""

from tests.settings.email import *  # noqa: F403
from tests.settings.notification import *  # noqa: F403
from tests.settings.notification import SHARED_APPS

INSTALLED_APPS = ["notification_project.notifications", "email_project.emails", *SHARED_APPS]
