"""System checks: they refuse only what contradicts itself."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register


@register
def check_outbox(**_: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if settings.OUTBOX_LEASE_SECONDS <= settings.KAFKA_MESSAGE_TIMEOUT_SECONDS:
        found.append(
            Error(
                f"OUTBOX_LEASE_SECONDS={settings.OUTBOX_LEASE_SECONDS:g} is not above "
                f"KAFKA_MESSAGE_TIMEOUT_SECONDS={settings.KAFKA_MESSAGE_TIMEOUT_SECONDS:g}",
                hint="A relay would lose its lease while its records are still on their way: raise the lease or lower the time-out.",
                id="outbox.E001",
            )
        )
    found += base_above_maximum("OUTBOX_RETRY_BASE_SECONDS", "OUTBOX_RETRY_MAX_SECONDS", id="outbox.E002")
    return found


def base_above_maximum(base: str, maximum: str, *, id: str) -> list[CheckMessage]:  # noqa: A002 (Django's name)
    if getattr(settings, base) <= getattr(settings, maximum):
        return []
    return [
        Error(
            f"{base}={getattr(settings, base):g} is above {maximum}={getattr(settings, maximum):g}",
            hint=f"Lower {base} or raise {maximum}.",
            id=id,
        )
    ]
