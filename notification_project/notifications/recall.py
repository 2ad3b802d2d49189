"""The e-mail service is told what it has forgotten: its database was restored, and what it reports lies behind what it reported before."""

from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

import msgspec
from django.conf import settings

from shared_events.contracts.events import (
    AnyStatus,
    Attempt,
    EmailSent,
    EmailStatusKnown,
    new_id,
    now,
)
from shared_events.contracts.topics import NOTIFICATION_EVENTS
from shared_events.outbox.models import OutboxEvent

from .models import Notification

Status = Notification.Status


class Known(NamedTuple):
    """What a notification was before a report."""

    id: UUID
    status: str
    status_version: int
    generation: int
    possible_duplicates: int


def is_forgotten(known: Known, event: AnyStatus) -> bool:
    """Whether the e-mail service, by this report, lacks what is known, or, by a late SENT, what it may have lost since.

    SENT is the last of a mail's states, and neither generations nor copies ever become fewer: only a restored database takes them back.
    """
    if event.status_version <= known.status_version:
        return (
            isinstance(event, EmailSent) and known.status != Status.SENT and event.status_version < known.status_version
        )
    return (
        (known.status == Status.SENT and not isinstance(event, EmailSent))
        or event.generation < known.generation
        or event.possible_duplicates < known.possible_duplicates
    )


def remind(ids: Collection[UUID]) -> None:
    """Stores an EMAIL_STATUS_KNOWN for each of these notifications; belongs into a transaction of the caller's."""
    rows = Notification.objects.filter(pk__in=ids).exclude(status=Status.CANCELLED).order_by("pk")
    OutboxEvent.objects.bulk_create([OutboxEvent.of(_what_is_known(row), NOTIFICATION_EVENTS) for row in rows])


def _what_is_known(row: Notification) -> EmailStatusKnown:
    return EmailStatusKnown(
        event_id=new_id(),
        notification_id=row.pk,
        status_version=row.status_version,
        occurred_at=now(),
        producer=settings.PRODUCER,
        status=row.status,  # type: ignore[arg-type]
        sent_at=row.sent_at,
        attempts=msgspec.convert(row.attempts, list[Attempt]),
        possible_duplicates=row.possible_duplicates,
        generation=row.generation,
    )
