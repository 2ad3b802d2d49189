"""System checks of the e-mail service."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 (Django's name)

from shared_events.service.checks import base_above_maximum

from .smtp import SmtpServer


@register
def check_retries(**_: Any) -> list[CheckMessage]:
    return base_above_maximum("EMAIL_RETRY_BASE_SECONDS", "EMAIL_RETRY_MAX_SECONDS", id="emails.E001")


@register
def check_server(**_: Any) -> list[CheckMessage]:
    """EMAIL_URL is required by the workers alone, which ask for it themselves; here it is only read where it is set."""
    if not settings.EMAIL_URL:
        return []
    try:
        server = SmtpServer.from_url(settings.EMAIL_URL)
    except ValueError as error:
        return [Error(f"EMAIL_URL: {error}", id="emails.E002")]
    if server.username and server.security == "none":
        return [
            Warning(
                "EMAIL_URL logs in without TLS",
                hint="Use smtp+tls:// or smtp+ssl://, unless the relay is on this machine.",
                id="emails.W001",
            )
        ]
    return []
