"""Cancelling: truthful, because only what no relay ever claimed can be cancelled."""

from django.db import transaction

from shared_events.outbox.models import OutboxEvent

from . import problems
from .models import Notification

CREATED = "EMAIL_NOTIFICATION_CREATED"


def cancel(notification: Notification) -> Notification:
    """The notification, CANCELLED; a second time as well. Problem 409 with its status where it may be on its way."""
    with transaction.atomic():
        if OutboxEvent.objects.filter(aggregate_id=notification.pk, event_type=CREATED).cancel_unclaimed():
            Notification.objects.filter(pk=notification.pk).mark_cancelled()
    notification.refresh_from_db()
    if notification.status != Notification.Status.CANCELLED:
        raise problems.not_cancellable(notification.status)
    return notification
