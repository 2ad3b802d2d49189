from collections.abc import Collection
from typing import Any, ClassVar, Self
from uuid import UUID

from django.db import models
from django.db.models import Case, F, When
from django.db.models.functions import Now

from shared_events.outbox.claim import claim_due, in_seconds

RESTORED_PHASE = "restored"
"""`uncertain_phase` of a mail that may have been sent between a backup and its restore."""


class SentEmailQuerySet(models.QuerySet["SentEmail"]):
    def held_by(self, token: int, ids: Collection[UUID]) -> Self:
        """Those of `ids` that the worker with this fencing token may still settle."""
        return self.filter(pk__in=ids, lease_token=token, status__in=SentEmail.OPEN)

    def renew(self, lease_seconds: float) -> int:
        return self.update(due_at=in_seconds(lease_seconds))

    def release(self) -> int:
        """Due at once again, as if it had not been claimed; nothing of it has left."""
        return self.update(due_at=Now(), lease_token=0, crashes=0, data_started_at=None)

    def mark(self) -> int:
        """Says, before it happens, that DATA may begin: whoever finds the mark without an outcome cannot know whether the mail was sent."""
        return self.update(data_started_at=Now())


class SentEmail(models.Model):
    """A notification as the e-mail service has it. The primary key is the notification's id: no second mail of it can be made."""

    class Status(models.TextChoices):
        PROCESSING = "PROCESSING"  # its first outcome is open
        RETRY_PENDING = "RETRY_PENDING"  # also while it is sent again
        SENT = "SENT"
        FAILED = "FAILED"
        UNCERTAIN = "UNCERTAIN"  # may have arrived: held until an operator decides

    class OnUncertain(models.TextChoices):
        RESEND = "resend"
        HOLD = "hold"

    OPEN: ClassVar = (Status.PROCESSING, Status.RETRY_PENDING)
    CLAIM_FIELDS: ClassVar = (
        "id", "event_id", "created_at", "send_after", "message_id", "dated_at", "sender", "recipient",
        "subject", "message", "html", "reply_to", "send_before",
        "on_uncertain", "status_version", "retry_count", "generation", "possible_duplicates", "attempts", "crashes", "data_started_at",
    )  # fmt: skip

    id = models.UUIDField(primary_key=True, editable=False, verbose_name="notification id")
    event_id = models.UUIDField(help_text="The event that it came with")
    created_at = models.DateTimeField(help_text="When the notification was accepted")
    received_at = models.DateTimeField()
    send_after = models.DateTimeField(null=True)
    send_before = models.DateTimeField(null=True)
    on_uncertain = models.CharField(max_length=8, choices=OnUncertain, default=OnUncertain.RESEND)

    # What the mail is made of, fixed at intake so that every attempt is the same.
    message_id = models.CharField(max_length=320)
    dated_at = models.DateTimeField()
    sender = models.CharField(max_length=320)
    recipient = models.CharField(max_length=254)
    subject = models.CharField(max_length=255)
    message = models.TextField()
    html = models.TextField(null=True)  # noqa: DJ001 (None: there is no alternative; empty: there is an empty one)
    reply_to = models.CharField(max_length=254, null=True)  # noqa: DJ001

    status = models.CharField(max_length=16, choices=Status, default=Status.PROCESSING)
    status_version = models.PositiveIntegerField(default=0, help_text="Counts the outcomes")
    generation = models.PositiveIntegerField(default=0, help_text="Counts replays and resolutions")
    retry_count = models.PositiveIntegerField(
        default=0, help_text="Deliveries that the server refused for the message's sake"
    )
    possible_duplicates = models.PositiveIntegerField(
        default=0, help_text="Copies beyond one that the recipient may have"
    )
    attempts = models.JSONField(default=list, help_text="The last 20 attempts, with the server's words")

    due_at = models.DateTimeField(
        null=True,
        help_text="When it may be claimed; the lease's end while a worker has it; none where nothing is left to do",
    )
    lease_token = models.BigIntegerField(default=0)
    crashes = models.PositiveIntegerField(default=0, help_text="Claims since the last settlement")
    data_started_at = models.DateTimeField(null=True, help_text="DATA may have begun, and no outcome is known yet")

    sent_at = models.DateTimeField(null=True)
    settled_at = models.DateTimeField(null=True, help_text="When the last outcome was written")
    failure_class = models.CharField(max_length=16, blank=True, default="")
    failure_code = models.CharField(max_length=32, blank=True, default="")
    failure_detail = models.CharField(max_length=500, blank=True, default="")
    uncertain_phase = models.CharField(max_length=16, blank=True, default="")
    uncertain_since = models.DateTimeField(null=True)
    uncertain_host = models.CharField(max_length=255, blank=True, default="")

    objects: ClassVar[Any] = SentEmailQuerySet.as_manager()

    class Meta:
        db_table = "sent_emails"
        verbose_name = "mail"
        indexes = (
            models.Index(fields=["due_at"], name="sent_email_due"),
        )  # read by claim_due; InnoDB appends the primary key

    def __str__(self) -> str:
        return str(self.id)

    @classmethod
    def claim(cls, *, batch: int, lease_seconds: float, token: int) -> list[tuple[Any, ...]]:
        """Leases up to `batch` due mails and marks them in the same UPDATE, but for those with `hold`, which are marked right before DATA.

        The tuples (CLAIM_FIELDS) show `data_started_at` as the last owner left it. A mark that was left behind stays until it is settled:
        without it the next owner would send a mail that is to be held.
        """
        marked = Case(
            When(on_uncertain=cls.OnUncertain.RESEND, then=Now()),
            default=F("data_started_at"),
            output_field=models.DateTimeField(),
        )
        return claim_due(
            cls, cls.CLAIM_FIELDS, batch=batch, lease_seconds=lease_seconds, token=token, data_started_at=marked
        )


class Restore(models.Model):
    """That this database was restored from a backup, and from where on its words count again. Only the last one matters."""

    restored_at = models.DateTimeField(help_text="By the database's clock")
    floor = models.PositiveIntegerField(
        help_text="Versions and generations from here on are above all that were reported before"
    )
    consumed = models.JSONField(
        help_text="Partition of the events' topic → offset below which records may have been taken in before"
    )

    objects: ClassVar[Any] = models.Manager()

    class Meta:
        db_table = "restores"

    def __str__(self) -> str:
        return f"restore {self.pk} at {self.restored_at}"

    def may_have_been_consumed(self, partition: int, offset: int) -> bool:
        return offset < int(self.consumed.get(str(partition), 0))
