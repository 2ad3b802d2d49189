"""The consumer loop's dead-letter writer."""

from contextlib import suppress

from django.conf import settings
from django.db import IntegrityError, transaction

from shared_events.kafka.consumer import Record

from .models import DeadLetter, record_dead_letters


def write_dead_letter(record: Record, *, letter_class: str, cause: str) -> None:
    """Stores a record that the handler failed on, in a transaction of its own."""
    letter = DeadLetter.of_record(record, letter_class=letter_class, cause=cause)
    with suppress(IntegrityError), transaction.atomic():  # another consumer of the same record was faster
        record_dead_letters([letter], topic=settings.DEAD_LETTER_TOPIC, producer=settings.PRODUCER)
