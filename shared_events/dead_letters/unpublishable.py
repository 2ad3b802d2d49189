"""Events that the relay gave up."""

from collections.abc import Sequence
from uuid import UUID

from django.conf import settings

from shared_events.outbox.models import OutboxEvent

from .models import DeadLetter, record_dead_letters


def record_unpublishable(given_up: Sequence[tuple[UUID, str]], *, topic: str) -> dict[UUID, str]:
    """Makes a dead letter of each event of `topic` among those given up (id, reason); returns the reasons by notification id.

    Events of other topics are left: the event of a dead letter never makes one, its row stands in the table already.
    """
    reasons = dict(given_up)
    letters: dict[UUID, DeadLetter] = {}
    for event in OutboxEvent.objects.filter(pk__in=reasons, topic=topic, aggregate_id__isnull=False):
        assert event.aggregate_id is not None  # noqa: S101 (by the filter)
        letters[event.aggregate_id] = DeadLetter.of_notification(
            event.aggregate_id,
            event.publication,
            letter_class="unpublishable",
            cause=reasons[event.pk],
            original=bytes(event.payload),
        )
    record_dead_letters(list(letters.values()), topic=settings.DEAD_LETTER_TOPIC, producer=settings.PRODUCER)
    return {notification_id: letter.cause for notification_id, letter in letters.items()}
