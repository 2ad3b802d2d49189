"""What the notification service does with its dead letters when they are replayed."""

from collections.abc import Sequence
from uuid import UUID

from django.conf import settings

from shared_events.dead_letters.models import DeadLetter
from shared_events.dead_letters.replay import SupersededError, Verdict, is_readable, record_of
from shared_events.outbox.models import OutboxEvent
from shared_events.outbox.wakeup import WakeUp

from .cancellation import CREATED
from .models import Notification
from .status import handle

Status = Notification.Status


class NotificationReplayer:
    """An unpublishable event is published again; a parked status goes through the same handler as from Kafka."""

    def __init__(self) -> None:
        self._wake_up = WakeUp(settings.REDIS_URL, settings.PRODUCER)

    def judge(self, letters: Sequence[DeadLetter]) -> dict[UUID, Verdict]:
        ids = {letter.notification_id for letter in letters if letter.notification_id is not None}
        known = {row.pk: row for row in Notification.objects.filter(pk__in=ids)}
        return {letter.pk: self._judge(letter, known.get(letter.subject_id)) for letter in letters}

    def replay(self, letter: DeadLetter) -> None:
        record = record_of(letter)
        if record is not None:
            handle([record])
            return
        event = OutboxEvent.objects.filter(aggregate_id=letter.subject_id, event_type=CREATED)
        failed = Notification.objects.filter(pk=letter.subject_id)
        if not (event.publish_given_up() and failed.mark_publishable()):
            raise SupersededError

    def done(self) -> None:
        self._wake_up.ring()

    def _judge(self, letter: DeadLetter, notification: Notification | None) -> Verdict:
        if letter.source_topic is not None:
            if not is_readable(letter):
                return Verdict.UNREADABLE
            return (
                Verdict.REPLAY
                if letter.letter_class != "orphan_status" or notification is not None
                else Verdict.TOO_OLD
            )
        if notification is None:
            return Verdict.TOO_OLD
        if notification.status == Status.SENT:
            return Verdict.ALREADY_SENT
        if notification.status == Status.CANCELLED:
            return Verdict.CANCELLED
        if notification.status == Status.UNCERTAIN:
            return Verdict.UNCERTAIN
        if notification.status != Status.FAILED or notification.failure_class != "unpublishable":
            return Verdict.SUPERSEDED
        return Verdict.REPLAY
