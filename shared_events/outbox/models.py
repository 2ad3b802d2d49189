from collections.abc import Collection
from datetime import datetime
from typing import Any, ClassVar, Self
from uuid import UUID

from django.db import models
from django.db.models import F
from django.db.models.functions import Greatest, Now

from shared_events.contracts.events import AnyEvent, DeadLetterRecorded, encode, now

from .claim import in_seconds


class OutboxEventQuerySet(models.QuerySet["OutboxEvent"]):
    """Transitions, each one guarded UPDATE that returns how many rows it changed."""

    def overdue(self, seconds: float) -> Self:
        """Unpublished ones that should have been published so long ago; walks the index on due_at."""
        return self.filter(due_at__lte=in_seconds(-seconds))

    def held_by(self, token: int, ids: Collection[UUID]) -> Self:
        return self.filter(pk__in=ids, lease_token=token, status__in=OutboxEvent.PUBLISHABLE)

    def mark_published(self) -> int:
        return self.update(
            status=OutboxEvent.Status.PUBLISHED,
            due_at=None,
            published_at=Now(),
            lease_token=0,
            crashes=0,
            last_error="",
        )

    def release(self) -> int:
        """Due since when it was, as if it had not been claimed: an outage or an orderly stop costs an event nothing."""
        return self.update(due_at=F("available_at"), lease_token=0, crashes=0)

    def unclaim(self) -> int:
        """As before the claim, its crashes too."""
        return self.update(due_at=F("available_at"), lease_token=0, crashes=F("crashes") - 1)

    def mark_failed(self, error: str, wait_seconds: float) -> int:
        return self.update(
            status=OutboxEvent.Status.FAILED,
            retry_count=F("retry_count") + 1,
            due_at=in_seconds(wait_seconds),
            lease_token=0,
            crashes=0,
            last_error=error[:500],
        )

    def mark_dead_lettered(self, error: str) -> int:
        return self.update(
            status=OutboxEvent.Status.DEAD_LETTERED,
            retry_count=F("retry_count") + 1,
            due_at=None,
            lease_token=0,
            crashes=0,
            last_error=error[:500],
        )

    def publish_again(self) -> int:
        """PUBLISHED → PENDING: nothing was heard of it, so its consumer is asked again, which `publication` tells it."""
        return self.filter(status=OutboxEvent.Status.PUBLISHED).update(
            status=OutboxEvent.Status.PENDING,
            publication=F("publication") + 1,
            due_at=Now(),
            available_at=Now(),
            lease_token=0,
            crashes=0,
        )

    def count_as_published(self) -> int:
        """For what is to be published, and may have been already: it counts as claimed, and its consumer is told that it may know it."""
        return self.filter(status__in=OutboxEvent.PUBLISHABLE).update(
            publication=Greatest(F("publication"), 2), claims=Greatest(F("claims"), 1)
        )

    def publish_given_up(self) -> int:
        """DEAD_LETTERED → PENDING with a new budget: an operator replays it."""
        return self.filter(status=OutboxEvent.Status.DEAD_LETTERED).update(
            status=OutboxEvent.Status.PENDING, retry_count=0, due_at=Now(), available_at=Now(), lease_token=0, crashes=0
        )

    def cancel_unclaimed(self) -> int:
        """Only what no relay ever claimed can be cancelled: of anything else nobody knows whether it is on its way."""
        return self.filter(status=OutboxEvent.Status.PENDING, claims=0).update(
            status=OutboxEvent.Status.CANCELLED, due_at=None
        )


class OutboxEvent(models.Model):
    """An event that was stored in the transaction of its cause, and is published until the broker acknowledges it."""

    class Status(models.TextChoices):
        PENDING = "PENDING"
        FAILED = "FAILED"  # refused by the broker for its own sake, will be tried again
        PUBLISHED = "PUBLISHED"
        DEAD_LETTERED = "DEAD_LETTERED"
        CANCELLED = "CANCELLED"

    PUBLISHABLE: ClassVar = (Status.PENDING, Status.FAILED)

    id = models.UUIDField(primary_key=True, editable=False)
    aggregate_id = models.UUIDField(
        null=True, help_text="The notification; none for a dead letter whose original could not be read"
    )
    event_type = models.CharField(max_length=64)
    topic = models.CharField(max_length=100)
    message_key = models.BinaryField(null=True, help_text="Only where the key is not the notification's id")
    payload = models.BinaryField()
    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING)
    retry_count = models.PositiveIntegerField(default=0, help_text="Publishes that failed for the event's own sake")
    crashes = models.PositiveIntegerField(default=0, help_text="Claims since the last settlement")
    claims = models.PositiveIntegerField(default=0, help_text="Claims ever: only an event with none can be cancelled")
    publication = models.PositiveIntegerField(default=1)
    lease_token = models.BigIntegerField(default=0)
    due_at = models.DateTimeField(
        null=True,
        help_text="When a relay may take it; the lease's end while one has it; none where nothing is left to do",
    )
    available_at = models.DateTimeField(help_text="Since when it should be published: its age counts from here")
    created_at = models.DateTimeField()
    published_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=500, blank=True, default="")

    objects: ClassVar[Any] = OutboxEventQuerySet.as_manager()

    class Meta:
        db_table = "outbox_events"
        indexes = (
            models.Index(fields=["due_at"], name="outbox_due"),
        )  # read by claim_due; InnoDB appends the primary key

    def __str__(self) -> str:
        return f"{self.event_type} {self.id}"

    @classmethod
    def of(
        cls,
        event: AnyEvent | DeadLetterRecorded,
        topic: str,
        *,
        due_at: datetime | None = None,
        key: bytes | None = None,
    ) -> "OutboxEvent":
        """An unsaved row for `event`, due at once (by the database's clock) unless `due_at` says later."""
        return cls(
            id=event.event_id,
            aggregate_id=event.notification_id,
            event_type=str(event.__struct_config__.tag),
            topic=topic,
            message_key=key,
            payload=encode(event),
            due_at=due_at or Now(),
            available_at=due_at or Now(),
            created_at=now(),
        )
