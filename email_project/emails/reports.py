"""Status events: what the notification service is told of a mail."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from django.conf import settings

from shared_events.contracts.events import (
    AnyStatus,
    Attempt,
    EmailDeferred,
    EmailFailed,
    EmailSent,
    EmailUncertain,
    Failure,
    Uncertain,
    new_id,
    now,
)

from .models import SentEmail

HELD_NEXT = "held until an operator says whether it arrived"


def envelope(notification_id: UUID, status_version: int) -> dict[str, Any]:
    return {
        "event_id": new_id(),
        "notification_id": notification_id,
        "status_version": status_version,
        "occurred_at": now(),
        "producer": settings.PRODUCER,
    }


def uncertain_of(phase: str, since: datetime, host: str, message_id: str) -> Uncertain:
    return Uncertain(phase=str(phase), since=since, host=host, message_id=message_id, next=HELD_NEXT)


def report_of(mail: SentEmail) -> AnyStatus:
    """The state of a known mail as its answer to an event that was published again; the version is the row's own."""
    common: dict[str, Any] = {
        **envelope(mail.pk, mail.status_version),
        "attempts": msgspec.convert(mail.attempts, list[Attempt]),
        "possible_duplicates": mail.possible_duplicates,
        "generation": mail.generation,
    }
    if mail.status == SentEmail.Status.SENT and mail.sent_at is not None:
        return EmailSent(**common, sent_at=mail.sent_at)
    if mail.status == SentEmail.Status.FAILED:
        failure = Failure(failure_class=mail.failure_class, code=mail.failure_code, detail=mail.failure_detail)
        return EmailFailed(**common, failure=failure)
    if mail.status == SentEmail.Status.UNCERTAIN and mail.uncertain_since is not None:
        return EmailUncertain(
            **common,
            uncertain=uncertain_of(mail.uncertain_phase, mail.uncertain_since, mail.uncertain_host, mail.message_id),
        )
    next_attempt_at = mail.due_at if mail.status == SentEmail.Status.RETRY_PENDING else None
    return EmailDeferred(**common, next_attempt_at=next_attempt_at)
