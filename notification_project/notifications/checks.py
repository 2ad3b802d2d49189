"""System checks of the notification service."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from .limits import Rate


@register
def check_retentions(**_: Any) -> list[CheckMessage]:
    days = settings.NOTIFICATIONS_RETENTION_DAYS
    found: list[CheckMessage] = []
    if days * 86_400 < settings.IDEMPOTENCY_TTL_SECONDS:
        found.append(
            Error(
                f"IDEMPOTENCY_TTL_SECONDS={settings.IDEMPOTENCY_TTL_SECONDS} outlives NOTIFICATIONS_RETENTION_DAYS={days:g}",
                hint="A key would answer with a notification that is deleted: shorten the one or lengthen the other.",
                id="notifications.E002",
            )
        )
    if days < settings.OUTBOX_RETENTION_DAYS:
        found.append(
            Error(
                f"OUTBOX_RETENTION_DAYS={settings.OUTBOX_RETENTION_DAYS:g} is above NOTIFICATIONS_RETENTION_DAYS={days:g}",
                hint="An event would outlive its notification: shorten the one or lengthen the other.",
                id="notifications.E003",
            )
        )
    return found


@register
def check_rates(**_: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for name in ("RATE_LIMIT_CLIENT", "RATE_LIMIT_RECIPIENT"):
        try:
            Rate.parse(getattr(settings, name))
        except ValueError as error:
            found.append(Error(f"{name}: {error}", id="notifications.E001"))
    return found
