"""System checks of the e-mail service."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 (Django's name)
from django.core.exceptions import ImproperlyConfigured

from shared_events.service.checks import base_above_maximum

from .sender_options import read_server, require_sender


@register
def check_retries(**_: Any) -> list[CheckMessage]:
    return base_above_maximum("EMAIL_RETRY_BASE_SECONDS", "EMAIL_RETRY_MAX_SECONDS", id="emails.E001")


@register
def check_server(**_: Any) -> list[CheckMessage]:
    """EMAIL_URL is required by the workers alone, which ask for it themselves; here it is only read where it is set."""
    if not settings.EMAIL_URL:
        return []
    try:
        server = read_server()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="emails.E002")]
    if server.username and server.security == "none":
        return [
            Warning(
                "EMAIL_URL logs in without TLS",
                hint="Use smtp+tls:// or smtp+ssl://, unless the relay is on this machine.",
                id="emails.W001",
            )
        ]
    return []


@register
def check_sender(**_: Any) -> list[CheckMessage]:
    if settings.DEFAULT_FROM_EMAIL:
        try:
            require_sender()
        except ImproperlyConfigured as error:
            return [Error(str(error), id="emails.E003")]
    return []
