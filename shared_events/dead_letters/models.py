import base64
import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar, Self
from uuid import UUID

from django.db import models
from django.db.models.functions import Now

from shared_events.contracts.events import DeadLetterRecorded, new_id, now
from shared_events.kafka.consumer import Record
from shared_events.outbox.models import OutboxEvent
from shared_events.runtime.fields import DigestField

TOPIC_LIMIT_BYTES = 500_000
TRUNCATED_BYTES = 64 * 1024
NIL = UUID(int=0)


class DeadLetterQuerySet(models.QuerySet["DeadLetter"]):
    def open(self) -> Self:
        """Neither replayed nor dismissed, oldest first; walks the index on (replayed_at, id)."""
        return self.filter(replayed_at=None, dismissed_at=None).order_by("pk")

    def mark_replayed(self) -> int:
        return self.open().order_by().update(replayed_at=Now())

    def mark_dismissed(self) -> int:
        return self.open().order_by().update(dismissed_at=Now())


class DeadLetter(models.Model):
    """Something that could not be processed, whole, with its cause: kept until an operator replays it."""

    id = models.UUIDField(primary_key=True, editable=False)
    identity = DigestField(unique=True, help_text="The same failure makes one dead letter, however often it is met")
    notification_id = models.UUIDField(null=True)
    generation = models.PositiveIntegerField(default=0)
    letter_class = models.CharField("class", max_length=32, db_column="class")
    cause = models.CharField(max_length=500)
    source_topic = models.CharField(max_length=100, null=True)  # noqa: DJ001 (None: it came from a row, not from Kafka)
    source_partition = models.IntegerField(null=True)
    source_offset = models.BigIntegerField(null=True)
    source_timestamp_ms = models.BigIntegerField(null=True)
    source_key = models.BinaryField(null=True)
    source_headers = models.JSONField(default=list, help_text="Pairs of a name and its value in base64")
    original = models.BinaryField(null=True, help_text="The record's value, byte for byte; none where it had none")
    created_at = models.DateTimeField()
    replayed_at = models.DateTimeField(null=True)
    dismissed_at = models.DateTimeField(null=True, help_text="An operator said that nothing is to be done")

    objects: ClassVar[Any] = DeadLetterQuerySet.as_manager()

    class Meta:
        db_table = "dead_letters"
        indexes = (
            models.Index(fields=["notification_id"], name="dead_letter_notification"),  # where is my message?
            models.Index(fields=["replayed_at", "id"], name="dead_letter_open"),  # the console's list of open ones
        )

    def __str__(self) -> str:
        return f"{self.letter_class} {self.id}"

    @property
    def subject_id(self) -> UUID:
        """The notification's id; the nil UUID (RFC 9562 5.9), which is nobody's, where the original could not be read."""
        return self.notification_id or NIL

    @property
    def is_open(self) -> bool:
        return self.replayed_at is None and self.dismissed_at is None

    @classmethod
    def of_record(
        cls, record: Record, *, letter_class: str, cause: str, notification_id: UUID | None = None
    ) -> "DeadLetter":
        """An unsaved dead letter of a record as Kafka had it. Offsets begin anew after a loss, so they alone identify nothing."""
        place = f"{record.topic}\0{record.partition}\0{record.offset}\0{record.timestamp_ms}\0".encode()
        return cls(
            id=new_id(),
            identity=hashlib.sha256(place + (record.value or b"")).digest(),
            notification_id=notification_id,
            letter_class=letter_class,
            cause=cause[:500],
            source_topic=record.topic,
            source_partition=record.partition,
            source_offset=record.offset,
            source_timestamp_ms=record.timestamp_ms,
            source_key=record.key,
            source_headers=[
                [name, None if value is None else base64.b64encode(value).decode()] for name, value in record.headers
            ],
            original=record.value,
            created_at=now(),
        )

    @staticmethod
    def identity_of(notification_id: UUID, *of_what: object) -> bytes:
        """One failure of a notification: the generation of a failed mail, or what else tells it from others."""
        return hashlib.sha256("\0".join(map(str, (notification_id, *of_what))).encode()).digest()

    @classmethod
    def of_notification(
        cls, notification_id: UUID, generation: int, *, letter_class: str, cause: str, original: bytes
    ) -> "DeadLetter":
        """An unsaved dead letter of a notification that was read and yet failed: one for each generation of it."""
        return cls(
            id=new_id(),
            identity=cls.identity_of(notification_id, generation),
            notification_id=notification_id,
            generation=generation,
            letter_class=letter_class,
            cause=cause[:500],
            original=original,
            created_at=now(),
        )

    def as_event(self, producer: str) -> DeadLetterRecorded:
        original = bytes(self.original or b"")
        truncated = len(original) > TOPIC_LIMIT_BYTES
        return DeadLetterRecorded(
            event_id=new_id(),
            notification_id=self.notification_id,
            occurred_at=self.created_at,
            producer=producer,
            identity=bytes(self.identity).hex(),
            letter_class=self.letter_class,
            cause=self.cause,
            source_topic=self.source_topic,
            source_partition=self.source_partition,
            source_offset=self.source_offset,
            original=original[:TRUNCATED_BYTES] if truncated else original,
            original_size=len(original),
            original_sha256=hashlib.sha256(original).hexdigest(),
            truncated=truncated,
        )


class AuditEntry(models.Model):
    """Who did what by hand, to what, when and why."""

    class Action(models.TextChoices):
        REPLAY = "replay"
        DISMISS = "dismiss"
        RESOLVE = "resolve"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    at = models.DateTimeField(default=now)
    action = models.CharField(max_length=16, choices=Action)
    operator = models.CharField(max_length=150)
    subject_id = models.UUIDField(help_text="The dead letter or the notification")
    reason = models.CharField(max_length=500)
    detail = models.CharField(max_length=100, blank=True, default="")

    objects: ClassVar[Any] = models.Manager()

    class Meta:
        db_table = "audit_entries"
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.action} by {self.operator}"


def record_dead_letters(letters: Sequence[DeadLetter], *, topic: str, producer: str) -> int:
    """Stores those of `letters` that are not known yet, each with its event for `topic`; returns how many those are.

    Belongs into the transaction of the failure. Three statements; IntegrityError where another worker stored the same one meanwhile.
    """
    if not letters:
        return 0
    by_identity = {bytes(letter.identity): letter for letter in letters}
    known = DeadLetter.objects.filter(identity__in=list(by_identity)).values_list("identity", flat=True)
    for identity in known:
        del by_identity[bytes(identity)]
    new = list(by_identity.values())
    DeadLetter.objects.bulk_create(new)
    OutboxEvent.objects.bulk_create(
        [
            OutboxEvent.of(
                letter.as_event(producer),
                topic,
                key=bytes(letter.source_key)
                if letter.notification_id is None and letter.source_key is not None
                else None,
            )
            for letter in new
        ]
    )
    return len(new)
