"""What `prune` may delete here. A FAILED notification stays: whether its dead letter was dismissed only the e-mail service knows."""

from django.conf import settings
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now

from shared_events.dead_letters.retention import DEAD_LETTERS, PruneRule, older_than
from shared_events.outbox.models import OutboxEvent

from .models import IdempotencyKey, Notification

OUTBOX_DONE = (OutboxEvent.Status.PUBLISHED, OutboxEvent.Status.CANCELLED)

# An event may have to be published again until its notification is final.
_OPEN = Notification.objects.filter(pk=OuterRef("aggregate_id"), reconcile_at__isnull=False)

PRUNE_RULES = (
    PruneRule("idempotency_keys", lambda: IdempotencyKey.objects.filter(expires_at__lt=Now()), order="expires_at"),
    PruneRule(
        "outbox_events",
        lambda: OutboxEvent.objects.filter(
            pk__lt=older_than(settings.OUTBOX_RETENTION_DAYS), status__in=OUTBOX_DONE
        ).exclude(Exists(_OPEN)),
    ),
    PruneRule(
        "notifications",
        lambda: Notification.objects.filter(
            pk__lt=older_than(settings.NOTIFICATIONS_RETENTION_DAYS),
            status__in=(Notification.Status.SENT, Notification.Status.CANCELLED),
            reconcile_at=None,
        ),
    ),
    DEAD_LETTERS,
)
