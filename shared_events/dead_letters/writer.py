"""Dead letters of records: what cannot be read, and what the consumer loop's handler failed on."""

from contextlib import suppress

import structlog
from django.conf import settings
from django.db import IntegrityError, transaction

from shared_events.contracts.events import UnreadableEventError
from shared_events.kafka.consumer import Record

from .models import DeadLetter, record_dead_letters

log = structlog.get_logger(__name__)


def unreadable(record: Record, error: UnreadableEventError) -> DeadLetter:
    """An unsaved dead letter of a record that could not be decoded, which the log says too."""
    log.error(
        "record cannot be read",
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        cause=error.letter_class,
    )
    return DeadLetter.of_record(
        record, letter_class=error.letter_class, cause=error.cause, notification_id=error.notification_id
    )


def write_dead_letter(record: Record, *, letter_class: str, cause: str) -> None:
    """Stores a record that the handler failed on, in a transaction of its own."""
    letter = DeadLetter.of_record(record, letter_class=letter_class, cause=cause)
    with suppress(IntegrityError), transaction.atomic():  # another consumer of the same record was faster
        record_dead_letters([letter], topic=settings.DEAD_LETTER_TOPIC, producer=settings.PRODUCER)
