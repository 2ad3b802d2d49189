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
    letters = []
    for event in OutboxEvent.objects.filter(pk__in=reasons, topic=topic, aggregate_id__isnull=False):
        assert event.aggregate_id is not None  # noqa: S101 (by the filter)
        letter = DeadLetter.of_notification(
            event.aggregate_id, 0, letter_class="unpublishable", cause=reasons[event.pk], original=bytes(event.payload)
        )
        letter.identity = DeadLetter.identity_of(
            event.aggregate_id, event.pk, event.claims
        )  # given up again: a new one
        letters.append(letter)
    record_dead_letters(letters, topic=settings.DEAD_LETTER_TOPIC, producer=settings.PRODUCER)
    return {letter.notification_id: letter.cause for letter in letters if letter.notification_id is not None}
