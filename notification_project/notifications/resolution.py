"""Resolving an uncertain notification: the e-mail service decides, by an event that carries the operator's word."""

from django.conf import settings
from django.db import transaction

from shared_events.contracts.events import EmailResolutionRequested, new_id, now
from shared_events.contracts.topics import NOTIFICATION_EVENTS
from shared_events.dead_letters.models import AuditEntry
from shared_events.outbox.models import OutboxEvent

from . import problems
from .models import Notification

REQUESTED = "resolution requested: "


def request_on_its_way(notification: Notification) -> str:
    """What was requested of the e-mail service for this generation, and when; empty where nothing was."""
    said = str((notification.uncertain or {}).get("next", ""))
    return said if said.startswith(REQUESTED) else ""


def request_resolution(notification: Notification, resolution: str, *, reason: str, operator: str) -> Notification:
    """Stores the request, audited, for the mail's present generation; UNCERTAIN stands until the answer is there.

    Returns the notification as it is now: `uncertain.next` says that the request is on its way.

    Problem 409 where it is not UNCERTAIN. Asked twice for one generation, the second changes nothing.
    """
    with transaction.atomic():
        current = Notification.objects.select_for_update().get(pk=notification.pk)
        if current.status != Notification.Status.UNCERTAIN:
            raise problems.not_uncertain(current.status)
        at = now()
        event = EmailResolutionRequested(
            event_id=new_id(),
            notification_id=current.pk,
            occurred_at=at,
            producer=settings.PRODUCER,
            resolution=resolution,  # type: ignore[arg-type]
            reason=reason[:500],
            operator=operator,
            generation=current.generation,
        )
        OutboxEvent.objects.bulk_create([OutboxEvent.of(event, NOTIFICATION_EVENTS)])
        AuditEntry.objects.create(
            action=AuditEntry.Action.RESOLVE,
            operator=operator[:150],
            subject_id=current.pk,
            reason=reason[:500],
            detail=resolution,
        )
        if current.uncertain and not request_on_its_way(current):
            instant = at.isoformat(timespec="seconds").replace("+00:00", "Z")
            words = f"{REQUESTED}{resolution} at {instant}, on its way to the e-mail service"
            current.uncertain = {**current.uncertain, "next": words}
            current.save(update_fields=["uncertain"])
        return current
