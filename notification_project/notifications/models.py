from datetime import datetime
from typing import Any, ClassVar, Self

from django.db import models
from django.db.models import Case, F, Q, When
from django.db.models.functions import Greatest, Now

from shared_events.outbox.claim import in_seconds
from shared_events.runtime.fields import DigestField

A_DAY_SECONDS = 86_400


class ApiClient(models.Model):
    """Who may send: keys, limits and idempotency keys belong to a client."""

    name = models.CharField(max_length=100, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[Any] = models.Manager()

    class Meta:
        db_table = "api_clients"
        verbose_name = "API client"

    def __str__(self) -> str:
        return self.name


class ApiKey(models.Model):
    """A key, hashed. Two of a client may live at a time, so that it can be rotated without a gap."""

    class Scope(models.TextChoices):
        SEND = "send"
        READ = "read"
        OPERATE = "operate"

    client = models.ForeignKey(ApiClient, on_delete=models.PROTECT, related_name="keys")
    prefix = models.CharField(max_length=16, unique=True, help_text="The public part of the key, by which it is found")
    digest = DigestField(help_text="HMAC-SHA256 of the whole key under SECRET_KEY")
    scopes = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar[Any] = models.Manager()

    class Meta:
        db_table = "api_keys"
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.client} {self.prefix}…"

    @classmethod
    def live(cls) -> models.QuerySet["ApiKey"]:
        alive: models.QuerySet[ApiKey] = cls.objects.filter(
            Q(expires_at=None) | Q(expires_at__gt=Now()), revoked_at=None
        )
        return alive


class NotificationQuerySet(models.QuerySet["Notification"]):
    """Transitions, each one guarded UPDATE that returns how many rows it changed."""

    def due_for_reconciling(self, after_seconds: float) -> Self:
        """Those of which nothing was heard for so long; walks the index on reconcile_at."""
        return self.filter(reconcile_at__lte=in_seconds(-after_seconds)).order_by("reconcile_at")

    def mark_cancelled(self) -> int:
        return self.filter(status=Notification.Status.PENDING).update(
            status=Notification.Status.CANCELLED, ended_at=Now(), reconcile_at=None
        )

    def mark_unpublishable(self, reason: str) -> int:
        return self.filter(status=Notification.Status.PENDING).update(
            status=Notification.Status.FAILED,
            ended_at=Now(),
            failure_class="unpublishable",
            failure_code="unpublishable",
            failure_detail=reason[:500],
            reconcile_at=None,
        )

    def mark_publishable(self) -> int:
        """FAILED as unpublishable → PENDING: its event is published again."""
        return self.filter(status=Notification.Status.FAILED, failure_class="unpublishable").update(
            status=Notification.Status.PENDING,
            ended_at=None,
            failure_class="",
            failure_code="",
            failure_detail="",
            reconcile_at=Now(),
        )

    def merge(self, status: str, status_version: int, values: dict[str, Any]) -> int:
        """Applies an outcome where it is news: SENT always wins, otherwise the higher version; an equal one changes nothing."""
        older = Q(status_version__lt=status_version)
        if status == Notification.Status.SENT:
            news = ~Q(status=Notification.Status.SENT) | older
        else:
            news = older & ~Q(status=Notification.Status.SENT)
        return self.filter(news).update(
            status=status, status_version=Greatest(F("status_version"), status_version), **values
        )

    def ask_again_later(self) -> int:
        """Their event is not published yet: that is no silence."""
        return self.update(reconcile_at=Now())

    def put_off(self, after_seconds: float) -> int:
        """Counts a round of reconciling: after the n-th the next is due in min(a day, 2^n × after_seconds) from now."""
        steps = [
            When(reconciled__gte=n - 1, then=in_seconds(min(A_DAY_SECONDS, 2**n * after_seconds) - after_seconds))
            for n in range(20, 0, -1)
        ]
        return self.update(
            reconcile_at=Case(*steps, output_field=models.DateTimeField()), reconciled=F("reconciled") + 1
        )


class Notification(models.Model):
    """A message that was accepted, and what is known of it. The body stands in its outbox event alone."""

    class Status(models.TextChoices):
        PENDING = "PENDING"
        SENT = "SENT"
        FAILED = "FAILED"
        CANCELLED = "CANCELLED"
        UNCERTAIN = "UNCERTAIN"

    FINAL: ClassVar = (Status.SENT, Status.FAILED, Status.CANCELLED)

    class OnUncertain(models.TextChoices):
        RESEND = "resend"
        HOLD = "hold"

    id = models.UUIDField(primary_key=True, editable=False)
    # No constraint in the database: clients are never deleted (PROTECT), and each insert would lock its client's row.
    client = models.ForeignKey(ApiClient, on_delete=models.PROTECT, db_index=False, db_constraint=False)
    recipient = models.CharField(max_length=254)
    subject = models.CharField(max_length=255)
    client_reference = models.CharField(max_length=128, null=True)  # noqa: DJ001 (None is shown as null)
    metadata = models.JSONField(default=dict)
    created_at = models.DateTimeField()
    send_after = models.DateTimeField(null=True)
    send_before = models.DateTimeField(null=True)
    on_uncertain = models.CharField(max_length=8, choices=OnUncertain, default=OnUncertain.RESEND)

    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING)
    status_version = models.PositiveIntegerField(default=0)
    sent_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True, help_text="When it became FAILED or CANCELLED; none where it is neither")
    failure_class = models.CharField(max_length=16, blank=True, default="")
    failure_code = models.CharField(max_length=32, blank=True, default="")
    failure_detail = models.CharField(max_length=500, blank=True, default="")
    uncertain = models.JSONField(null=True)
    attempts = models.JSONField(default=list)
    next_attempt_at = models.DateTimeField(null=True)
    possible_duplicates = models.PositiveIntegerField(default=0)
    generation = models.PositiveIntegerField(
        default=0, help_text="Counts replays and resolutions, as the e-mail service does"
    )
    reconcile_at = models.DateTimeField(null=True, help_text="Since when word is due; none where the state is final")
    reconciled = models.PositiveIntegerField(default=0, help_text="How often it was asked after in vain")

    objects: ClassVar[Any] = NotificationQuerySet.as_manager()

    class Meta:
        db_table = "notifications"
        indexes = (
            models.Index(fields=["client", "id"], name="notification_list"),  # the list and its cursor
            models.Index(
                fields=["client", "recipient", "id"], name="notification_recipient"
            ),  # the list of one recipient
            models.Index(
                fields=["client", "client_reference"], name="notification_reference"
            ),  # after an unknown outcome of a POST
            models.Index(fields=["reconcile_at"], name="notification_reconcile"),  # read by the reconciler
        )

    def __str__(self) -> str:
        return str(self.id)

    @property
    def is_final(self) -> bool:
        return self.status in self.FINAL


class IdempotencyKey(models.Model):
    """The truth of what a key was answered: inserted first in the transaction of its notification."""

    key_hash = DigestField(primary_key=True, help_text="SHA-256 of client, method, path and key")
    fingerprint = DigestField(help_text="SHA-256 of the canonical validated body")
    status_code = models.PositiveSmallIntegerField()
    location = models.CharField(max_length=255, blank=True, default="")
    body = models.BinaryField(help_text="The answer, byte for byte")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    objects: ClassVar[Any] = models.Manager()

    class Meta:
        db_table = "idempotency_keys"
        indexes = (models.Index(fields=["expires_at"], name="idempotency_expiry"),)  # read by prune

    def __str__(self) -> str:
        return bytes(self.key_hash).hex()


def first_due_at(created_at: datetime, send_after: datetime | None) -> datetime:
    """From when on word of a notification can be expected."""
    return max(created_at, send_after) if send_after else created_at
