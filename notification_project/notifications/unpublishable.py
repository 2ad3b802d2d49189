"""The outbox's hook: what becomes of a notification whose event can never be published."""

from collections.abc import Sequence
from uuid import UUID

from shared_events.contracts.topics import NOTIFICATION_EVENTS
from shared_events.dead_letters.unpublishable import record_unpublishable

from .models import Notification


def fail_notifications(given_up: Sequence[tuple[UUID, str]]) -> None:
    """FAILED, class `unpublishable`, and a dead letter each; in the relay's settling transaction."""
    for notification_id, reason in record_unpublishable(given_up, topic=NOTIFICATION_EVENTS).items():
        Notification.objects.filter(pk=notification_id).mark_unpublishable(reason)
