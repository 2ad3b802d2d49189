"""System checks: they refuse only what contradicts itself."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

RECONCILE_HORIZON_DAYS = 1.0


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


@register
def check_retentions(**_: Any) -> list[CheckMessage]:
    """What would be delivered or asked for again must still be known."""
    needed = 2 * (settings.TOPIC_RETENTION_DAYS + RECONCILE_HORIZON_DAYS)
    if needed <= settings.SENT_EMAILS_RETENTION_DAYS:
        return []
    return [
        Error(
            f"SENT_EMAILS_RETENTION_DAYS={settings.SENT_EMAILS_RETENTION_DAYS:g} is below {needed:g}, twice the sum of "
            f"TOPIC_RETENTION_DAYS={settings.TOPIC_RETENTION_DAYS:g} and {RECONCILE_HORIZON_DAYS:g} day of reconciling",
            hint="A record that is read again would be sent again once its mail is forgotten: raise it, or lower the topics' retention.",
            id="retention.E001",
        )
    ]


@register(deploy=True)
def check_crash_point(**_: Any) -> list[CheckMessage]:
    if not settings.CRASH_POINT:
        return []
    return [
        Error(
            f"CRASH_POINT={settings.CRASH_POINT!r} ends this process at that place",
            hint="It is for proofs alone: unset it.",
            id="runtime.E001",
        )
    ]


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
