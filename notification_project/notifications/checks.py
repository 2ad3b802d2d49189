"""System checks of the notification service."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from .limits import Rate


@register
def check_rates(**_: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for name in ("RATE_LIMIT_CLIENT", "RATE_LIMIT_RECIPIENT"):
        try:
            Rate.parse(getattr(settings, name))
        except ValueError as error:
            found.append(Error(f"{name}: {error}", id="notifications.E001"))
    return found
