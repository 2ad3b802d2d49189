"""The outbox's hook: what becomes of a notification whose event can never be published."""

from collections.abc import Sequence
from uuid import UUID

from shared_events.contracts.topics import NOTIFICATION_EVENTS
from shared_events.dead_letters.unpublishable import record_unpublishable
from shared_events.outbox.models import OutboxEvent

from .cancellation import CREATED
from .models import Notification


def fail_notifications(given_up: Sequence[tuple[UUID, str]]) -> None:
    """A dead letter each, in the relay's settling transaction; FAILED, class `unpublishable`, where it is what makes the mail."""
    reasons = record_unpublishable(given_up, topic=NOTIFICATION_EVENTS)
    if not reasons:
        return
    events = OutboxEvent.objects.filter(pk__in=[event_id for event_id, _ in given_up], event_type=CREATED)
    created = set(events.values_list("aggregate_id", flat=True))
    for notification_id, reason in reasons.items():
        if notification_id in created:
            Notification.objects.filter(pk=notification_id).mark_unpublishable(reason)
